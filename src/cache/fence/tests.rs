use super::*;

const NO_TIME: Settle = Settle { lag: Duration::ZERO, work: Duration::ZERO };

fn lag(seconds: u64) -> Settle {
    Settle { lag: Duration::from_secs(seconds), ..NO_TIME }
}

type Levels<'a> = &'a [Option<&'a str>];

fn fences() -> Arc<Fences> {
    Arc::new(Fences::new([7; 16]))
}

fn scope(fences: &Fences, levels: &[Option<&str>]) -> Scope {
    fences.scope("db:6333", levels.iter().copied())
}

/// Whether a write to `written` drops what was read from `read`.
fn drops(written: &[Option<&str>], read: &[Option<&str>]) -> bool {
    let fences = fences();
    let stamp = fences.stamp(&scope(&fences, read));
    assert!(fences.may_store(&stamp));
    drop(fences.write(&scope(&fences, written), NO_TIME));
    !fences.current(&stamp)
}

#[tokio::test(start_paused = true)]
async fn a_write_drops_its_own_scope_what_is_below_and_what_might_be() {
    let (t, a, b) = (Some("tenant"), Some("a"), Some("b"));
    let any = None;
    // (written, read, dropped)
    let table: [(Levels<'_>, Levels<'_>, bool); 13] = [
        (&[t, a], &[t, a], true),
        (&[t, b], &[t, a], false),
        (&[t, any], &[t, a], true),
        (&[any], &[t, a], true),
        (&[], &[t, a], true),
        (&[t, a], &[t, any], true),
        (&[t, a], &[t], true),
        (&[t, a], &[any], true),
        (&[t, a], &[], true),
        (&[b, a], &[t, any], false),
        (&[t], &[t, a], true),
        (&[t, any], &[t, any], true),
        (&[any], &[any], true),
    ];
    for (written, read, dropped) in table {
        assert_eq!(drops(written, read), dropped, "{written:?} -> {read:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn another_store_is_not_touched() {
    let fences = fences();
    let stamp = fences.stamp(&fences.scope("one:80", []));
    drop(fences.write(&fences.scope("other:80", []), NO_TIME));
    assert!(fences.current(&stamp));
}

#[tokio::test(start_paused = true)]
async fn a_read_sent_during_a_write_is_never_stored() {
    let fences = fences();
    let scope = scope(&fences, &[Some("n")]);
    let before = fences.stamp(&scope);
    let write = fences.write(&scope, NO_TIME);
    let during = fences.stamp(&scope);
    assert!(!fences.may_store(&before), "sent before the write");
    assert!(!during.settled() && !fences.may_store(&during), "sent during the write");
    drop(write);
    assert!(!fences.may_store(&before) && !fences.may_store(&during), "arrived after the write");
    assert!(!fences.current(&during));
    assert!(fences.may_store(&fences.stamp(&scope)), "sent after the write");
}

#[tokio::test(start_paused = true)]
async fn settle_is_judged_when_the_read_is_sent() {
    let fences = fences();
    let scope = scope(&fences, &[Some("n")]);
    drop(fences.write(&scope, lag(30)));
    let during = fences.stamp(&scope);
    tokio::time::advance(Duration::from_secs(31)).await;
    assert!(!fences.may_store(&during), "sent while the store settled, arrived after");
    assert!(fences.may_store(&fences.stamp(&scope)), "sent after");
}

#[tokio::test(start_paused = true)]
async fn searches_share_only_what_was_asked_under_the_same_state() {
    let fences = fences();
    let scope = scope(&fences, &[Some("n")]);
    let before = fences.stamp(&scope).generation();
    assert_eq!(fences.stamp(&scope).generation(), before);
    let write = fences.write(&scope, lag(30));
    let during = fences.stamp(&scope).generation();
    drop(write);
    let settling = fences.stamp(&scope).generation();
    tokio::time::advance(Duration::from_millis(999)).await;
    assert_eq!(fences.stamp(&scope).generation(), settling);
    tokio::time::advance(Duration::from_millis(28_002)).await;
    let settling_later = fences.stamp(&scope).generation();
    tokio::time::advance(Duration::from_secs(1)).await;
    let settled = fences.stamp(&scope).generation();
    let mut all = vec![before, during, settling, settling_later, settled];
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 5);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(fences.stamp(&scope).generation(), settled);
}

#[tokio::test(start_paused = true)]
async fn searches_do_not_share_across_the_end_of_the_first_of_two_settle_times() {
    let fences = fences();
    let scope = scope(&fences, &[Some("n")]);
    tokio::time::advance(Duration::from_millis(300)).await;
    drop(fences.write(&scope, lag(30)));
    tokio::time::advance(Duration::from_millis(15_100)).await;
    drop(fences.write(&scope, lag(30)));
    tokio::time::advance(Duration::from_millis(15_599)).await;
    let before = fences.stamp(&scope);
    tokio::time::advance(Duration::from_millis(1)).await;
    let after = fences.stamp(&scope);
    assert_ne!(before.generation(), after.generation(), "the first is due from the next whole second on");
    assert!(!after.settled(), "the second is not");
}

#[tokio::test(start_paused = true)]
async fn a_settle_time_ends_with_the_second_it_ends_in() {
    let fences = fences();
    let scope = scope(&fences, &[Some("n")]);
    tokio::time::advance(Duration::from_millis(700)).await;
    drop(fences.write(&scope, lag(2)));
    tokio::time::advance(Duration::from_millis(2_299)).await;
    assert!(!fences.stamp(&scope).settled());
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(fences.stamp(&scope).settled());
}

#[tokio::test(start_paused = true)]
async fn a_second_write_keeps_the_fence_up_until_both_have_ended() {
    let fences = fences();
    let scope = scope(&fences, &[Some("n")]);
    let (one, two) = (fences.write(&scope, NO_TIME), fences.write(&scope, NO_TIME));
    drop(one);
    assert!(!fences.stamp(&scope).settled());
    drop(two);
    assert!(fences.stamp(&scope).settled());
}

#[tokio::test(start_paused = true)]
async fn a_read_that_sees_all_is_bound_by_writes_under_way_and_by_work_not_by_lag() {
    let fences = fences();
    let scope = scope(&fences, &[Some("n")]);
    let sent_before = fences.stamp_of(&scope, true);
    let write = fences.write(&scope, lag(30));
    let during = fences.stamp_of(&scope, true);
    drop(write);
    assert!(
        !fences.may_store(&sent_before) && !fences.may_store(&during),
        "it may have seen what was before"
    );
    assert!(fences.may_store(&fences.stamp_of(&scope, true)), "sent after the write was answered");
    assert!(!fences.may_store(&fences.stamp(&scope)), "others wait until the store has settled");

    let mut unknown = fences.write(&scope, lag(1));
    unknown.may_come_later(Duration::from_secs(60));
    drop(unknown);
    assert!(!fences.may_store(&fences.stamp_of(&scope, true)), "it may be applied at any time");
    tokio::time::advance(Duration::from_secs(61)).await;
    assert!(fences.may_store(&fences.stamp_of(&scope, true)));

    drop(fences.write(&scope, Settle { work: Duration::from_secs(600), ..NO_TIME }));
    assert!(!fences.may_store(&fences.stamp_of(&scope, true)), "an import is under way");
}

#[tokio::test(start_paused = true)]
async fn a_visible_write_needs_no_time_and_takes_none_from_those_before() {
    let fences = fences();
    let scope = scope(&fences, &[Some("n")]);
    let mut write = fences.write(&scope, lag(30));
    write.is_visible();
    drop(write);
    assert!(fences.may_store(&fences.stamp(&scope)));
    drop(fences.write(&scope, lag(30)));
    let mut write = fences.write(&scope, lag(30));
    write.is_visible();
    drop(write);
    assert!(!fences.may_store(&fences.stamp(&scope)), "the one before still settles");
}

#[tokio::test(start_paused = true)]
async fn spellings_of_one_identifier_share_a_fence() {
    let written = [Some("0195D1A2B3C44D5E8F90A1B2C3D4E5F6")];
    let read = [Some("0195d1a2-b3c4-4d5e-8f90-a1b2c3d4e5f6")];
    assert!(drops(&written, &read) && drops(&read, &written));
    assert!(!drops(&[Some("docs1")], &[Some("docs2")]));
}

#[tokio::test(start_paused = true)]
async fn names_are_told_apart_by_length_not_by_text_alone() {
    let fences = fences();
    let ab = scope(&fences, &[Some("ab"), Some("c")]);
    let a = scope(&fences, &[Some("a"), Some("bc")]);
    assert_ne!(ab, a);
}

#[test]
fn tokens_do_not_repeat() {
    let mut seen: Vec<u64> = (0..100_000).map(token).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 100_000);
}

#[test]
fn what_no_write_changes_a_command_makes_unusable() {
    let fences = Arc::new(Fences::new([3; 16]));
    let (before, scope) = (fences.stamp_unfenced(), fences.scope("a", []));
    drop(fences.write(&scope, Settle::default()));
    assert!(fences.current(&before) && fences.may_store(&before) && !before.is_fenced());
    let search = fences.stamp(&scope);
    fences.shift_unfenced();
    assert!(!fences.current(&before) && !fences.may_store(&before));
    assert!(fences.current(&search), "searches have writes for that");
    let after = fences.stamp_unfenced();
    assert!(fences.may_store(&after));
    assert_ne!(before.generation(), after.generation(), "they share no flight");
}
