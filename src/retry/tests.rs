use super::*;

const S: Duration = Duration::from_secs(1);

fn policy(class: Class) -> Policy {
    Policy {
        enabled: true,
        class,
        attempts: 4,
        base: Duration::from_millis(500),
        factor: 2.0,
        max: Duration::from_secs(60),
        max_wait: Duration::from_secs(20),
    }
}

fn situation(class: Class, failure: Failure) -> Situation {
    Situation {
        class,
        attempt: 1,
        failure,
        upstream_says: None,
        push_back: Duration::ZERO,
        budget: Budget { used: 0, allowed: 10.0 },
        quickest: Duration::ZERO,
        remaining: 60 * S,
        waited: Duration::ZERO,
        client_retries: 0,
        random: 0.5,
    }
}

fn status(code: u16) -> Failure {
    Failure::Status(StatusCode::from_u16(code).unwrap())
}

fn decide(class: Class, failure: Failure) -> Option<GiveUp> {
    match policy(class).decide(&situation(class, failure)) {
        Decision::Retry { .. } => None,
        Decision::GiveUp(why) => Some(why),
    }
}

#[test]
fn what_each_class_bears() {
    use Class::{Chat, ChatStateful, Idempotent, Other};
    let never_sent = Failure::NeverSent(Kind::ConnectionRefused);
    let final_one = Some(GiveUp::NotRetryable);
    let table: [(Failure, [Option<GiveUp>; 4]); 13] = [
        // failure                      idempotent, chat, chat that leaves state, other
        (never_sent, [None, None, None, None]),
        (Failure::Reset, [None, None, Some(GiveUp::Class), Some(GiveUp::Class)]),
        (Failure::FirstByteTimeout, [None, Some(GiveUp::Class), Some(GiveUp::Class), Some(GiveUp::Class)]),
        (status(429), [None, None, None, Some(GiveUp::Class)]),
        (status(503), [None, None, None, Some(GiveUp::Class)]),
        (status(500), [None, None, Some(GiveUp::Class), Some(GiveUp::Class)]),
        (Failure::Billing, [Some(GiveUp::Billing); 4]),
        (Failure::Refused, [None, None, None, None]),
        (Failure::Reused, [None, None, Some(GiveUp::Class), Some(GiveUp::Class)]),
        (Failure::StreamError, [None, None, Some(GiveUp::Class), Some(GiveUp::Class)]),
        (Failure::IdleTimeout, [None, None, Some(GiveUp::Class), Some(GiveUp::Class)]),
        (Failure::Deadline, [Some(GiveUp::Deadline); 4]),
        (Failure::NeverSent(Kind::TlsCertificate), [final_one; 4]),
    ];
    for (failure, expected) in table {
        for (class, expected) in [Idempotent, Chat, ChatStateful, Other].into_iter().zip(expected) {
            assert_eq!(decide(class, failure), expected, "{class:?} {failure:?}");
        }
    }
}

#[test]
fn the_statuses_that_are_tried_again() {
    for code in 100..600 {
        let expected = [408, 409, 429, 500, 502, 503, 504, 529].contains(&code);
        assert_eq!(decide(Class::Idempotent, status(code)).is_none(), expected, "{code}");
    }
}

#[test]
fn back_off_is_full_jitter_under_a_growing_ceiling() {
    let policy = policy(Class::Chat);
    for (attempt, ceiling) in [(1, 0.5), (2, 1.0), (3, 2.0), (9, 60.0), (4_000_000_000, 60.0)] {
        for random in [0.0, 0.25, 0.999_999] {
            let wait = policy.back_off(attempt, random).as_secs_f64();
            assert!((wait - ceiling * random).abs() < 1e-6, "attempt {attempt}: {wait}");
        }
    }
}

#[test]
fn push_back_is_a_floor_and_never_a_ceiling() {
    let mut s = situation(Class::Chat, status(429));
    s.push_back = 3 * S;
    assert!(
        matches!(policy(Class::Chat).decide(&s), Decision::Retry { after, reason: Reason::TooManyRequests } if after == 3 * S)
    );
    s.push_back = Duration::from_millis(1);
    assert!(
        matches!(policy(Class::Chat).decide(&s), Decision::Retry { after, .. } if after == Duration::from_millis(250))
    );
}

#[test]
fn a_wait_that_does_not_fit_is_not_begun() {
    let mut s = situation(Class::Chat, status(429));
    s.push_back = 21 * S;
    assert_eq!(policy(Class::Chat).decide(&s), Decision::GiveUp(GiveUp::MaxWait));
    s.push_back = 10 * S;
    s.waited = 11 * S;
    assert_eq!(policy(Class::Chat).decide(&s), Decision::GiveUp(GiveUp::MaxWait));
    s.waited = Duration::ZERO;
    s.remaining = 10 * S;
    assert_eq!(policy(Class::Chat).decide(&s), Decision::GiveUp(GiveUp::Deadline));
}

#[test]
fn attempts_are_counted_with_those_of_the_sdk() {
    let mut s = situation(Class::Chat, status(500));
    for (client_retries, last) in [(0, 4), (1, 3), (2, 2), (3, 1), (9, 1)] {
        s.client_retries = client_retries;
        s.attempt = last;
        assert_eq!(policy(Class::Chat).decide(&s), Decision::GiveUp(GiveUp::Spent), "{client_retries}");
        if last > 1 {
            s.attempt = last - 1;
            assert!(matches!(policy(Class::Chat).decide(&s), Decision::Retry { .. }), "{client_retries}");
        }
    }
}

#[test]
fn off_is_off_and_the_upstream_is_obeyed() {
    let off = Policy { enabled: false, ..policy(Class::Idempotent) };
    let mut s = situation(Class::Idempotent, status(500));
    assert_eq!(off.decide(&s), Decision::GiveUp(GiveUp::Disabled));
    s.upstream_says = Some(false);
    assert_eq!(policy(Class::Idempotent).decide(&s), Decision::GiveUp(GiveUp::UpstreamSaysNo));
}

#[test]
fn only_what_was_ours_to_retry_stops_the_sdk() {
    use GiveUp::{
        Abandoned, Billing, Breaker, Budget, Class, Deadline, Disabled, MaxWait, Memory, NotRetryable, Size,
        Spent, UpstreamSaysNo,
    };
    for why in [Spent, Deadline, Billing, Budget, Breaker] {
        assert!(why.stops_sdk(), "{why:?}");
    }
    for why in [NotRetryable, Disabled, Class, MaxWait, UpstreamSaysNo, Abandoned, Size, Memory] {
        assert!(!why.stops_sdk(), "{why:?}");
    }
}

#[test]
fn a_connection_that_was_ending_is_replaced_at_once_and_whatever_the_budget() {
    for failure in [Failure::Reused, Failure::Refused] {
        let mut s = situation(Class::Chat, failure);
        (s.budget.allowed, s.push_back) = (0.0, 30 * S);
        let decide = |s: &Situation| policy(Class::Chat).decide(s);
        assert!(matches!(decide(&s), Decision::Retry { after: Duration::ZERO, .. }), "{failure:?}");
        // Once: an upstream that ends all of them would be asked twice as often otherwise.
        s.attempt = 2;
        assert_eq!(decide(&s), Decision::GiveUp(GiveUp::MaxWait), "{failure:?}");
        s.push_back = Duration::ZERO;
        assert_eq!(decide(&s), Decision::GiveUp(GiveUp::Budget), "{failure:?}");
        // And of the attempts there are.
        (s.attempt, s.client_retries) = (1, 3);
        assert_eq!(decide(&s), Decision::GiveUp(GiveUp::Spent), "{failure:?}");
        let off = Policy { enabled: false, ..policy(Class::Chat) };
        assert_eq!(off.decide(&s), Decision::GiveUp(GiveUp::Disabled));
    }
}

#[test]
fn an_attempt_that_cannot_end_in_time_is_not_begun() {
    let mut s = situation(Class::Chat, status(500));
    (s.push_back, s.remaining) = (S, 3 * S);
    s.quickest = 2 * S;
    assert_eq!(policy(Class::Chat).decide(&s), Decision::GiveUp(GiveUp::Deadline));
    s.quickest = S;
    assert!(matches!(policy(Class::Chat).decide(&s), Decision::Retry { .. }));
}

#[test]
fn a_budget_that_is_used_up_ends_it() {
    let mut s = situation(Class::Idempotent, status(500));
    (s.budget.used, s.budget.allowed) = (10, 10.9);
    assert_eq!(policy(Class::Idempotent).decide(&s), Decision::GiveUp(GiveUp::Budget));
    s.budget.allowed = 11.0;
    assert!(matches!(policy(Class::Idempotent).decide(&s), Decision::Retry { .. }));
}

#[test]
fn the_upstream_may_ask_for_another_attempt_where_none_is_usual() {
    let mut s = situation(Class::Chat, status(400));
    assert_eq!(policy(Class::Chat).decide(&s), Decision::GiveUp(GiveUp::NotRetryable));
    s.upstream_says = Some(true);
    assert!(matches!(policy(Class::Chat).decide(&s), Decision::Retry { reason: Reason::Status, .. }));
    for class in [Class::ChatStateful, Class::Other] {
        s.class = class;
        assert_eq!(policy(class).decide(&s), Decision::GiveUp(GiveUp::Class), "{class:?}");
    }
}

#[test]
fn a_stream_is_held_back_only_where_an_error_could_be_mended() {
    let chat = policy(Class::Chat);
    for (client_retries, held) in [(0, true), (2, true), (3, false)] {
        assert_eq!(chat.awaits_first_event(Class::Chat, client_retries), held, "{client_retries}");
    }
    assert!(!chat.awaits_first_event(Class::ChatStateful, 0) && !chat.awaits_first_event(Class::Other, 0));
    assert!(!Policy { enabled: false, ..chat }.awaits_first_event(Class::Chat, 0));
}

#[test]
fn what_failures_tell_of_the_upstream() {
    for (failure, health) in [
        (Failure::NeverSent(Kind::Dns), Health::Unreachable),
        (Failure::NeverSent(Kind::ConnectionRefused), Health::Unreachable),
        (Failure::NeverSent(Kind::TlsCertificate), Health::Unreachable),
        (Failure::NeverSent(Kind::ConnectionTerminated), Health::Unreachable),
        (Failure::Refused, Health::Unknown),
        (Failure::Reused, Health::Unknown),
        (Failure::Deadline, Health::Unknown),
        (Failure::Reset, Health::Failed),
        (Failure::FirstByteTimeout, Health::Failed),
        (Failure::IdleTimeout, Health::Failed),
        (Failure::StreamError, Health::Failed),
        (status(500), Health::Failed),
        (status(503), Health::Failed),
        (status(529), Health::Failed),
        (status(501), Health::Up),
        (status(429), Health::Up),
        (status(409), Health::Up),
        (status(404), Health::Up),
        (Failure::Billing, Health::Up),
    ] {
        assert_eq!(failure.health(), health, "{failure:?}");
    }
}
