use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn whose<'a>(id: &'a str, key: &'a str) -> (&'a [u8], [(&'static str, &'a [u8]); 1]) {
    (id.as_bytes(), [("authorization", key.as_bytes())])
}

fn name(conversations: &Conversations, id: &str, key: &str) -> Name {
    let (id, credentials) = whose(id, key);
    conversations.name(&Whose { id, route: "openai", credentials: &credentials })
}

fn snapshot(messages: u64) -> Snapshot {
    Snapshot {
        messages,
        user: messages / 2,
        assistant: messages / 2,
        characters: 10 * messages,
        tokens: 3 * messages,
        bytes: 40 * messages,
        system_prompt: true,
    }
}

fn request(forwarded: i64, saved: i64) -> Account {
    let amount = |messages| Amount { messages, bytes: 40 * messages, tokens: 3 * messages };
    Account { requests: 1, forwarded: amount(forwarded), saved: amount(saved) }
}

#[tokio::test(start_paused = true)]
async fn a_conversation_is_what_its_last_request_was_and_the_sum_of_what_was_done() {
    let conversations = Conversations::new(1 << 20, None).unwrap();
    let one = name(&conversations, "c-1", "sk-a");
    conversations.note(&one, "openai", DAY, Some(snapshot(20)), request(20, 0));
    tokio::time::advance(Duration::from_secs(90)).await;
    conversations.note(&one, "openai", DAY, Some(snapshot(31)), request(20, 11));
    // Refused, and sent whole.
    conversations.note(&one, "openai", DAY, None, Account { requests: 0, ..request(11, -11) });
    tokio::time::advance(Duration::from_secs(5)).await;
    let found = conversations.tell("c-1").await;
    assert!(!found.shared);
    let [told] = found.conversations.as_slice() else { panic!("{found:?}") };
    assert_eq!((told.route.as_str(), told.requests, told.idle_seconds), ("openai", 2, 5.0));
    assert_eq!((told.total_messages, told.user_messages, told.assistant_messages), (31, 15, 15));
    assert_eq!((told.total_characters, told.estimated_tokens, told.history_bytes), (310, 93, 1240));
    assert!(told.has_system_prompt);
    assert_eq!(told.forwarded, Amount { messages: 51, bytes: 2040, tokens: 153 });
    assert_eq!(told.saved, Amount::default());
}

#[tokio::test(start_paused = true)]
async fn who_shows_anothers_identifier_shows_another_conversation() {
    let conversations = Conversations::new(1 << 20, None).unwrap();
    for key in ["sk-a", "sk-b"] {
        let name = name(&conversations, "42", key);
        conversations.note(
            &name,
            "openai",
            DAY,
            Some(snapshot(if key == "sk-a" { 3 } else { 5 })),
            request(3, 0),
        );
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let (id, credentials) = whose("42", "sk-a");
    let elsewhere = conversations.name(&Whose { id, route: "azure", credentials: &credentials });
    conversations.note(&elsewhere, "azure", DAY, Some(snapshot(7)), request(7, 0));
    let found = conversations.tell("42").await;
    let messages: Vec<u64> = found.conversations.iter().map(|told| told.total_messages).collect();
    assert_eq!(messages, [7, 5, 3], "the last active first");
    assert!(conversations.tell("43").await.conversations.is_empty());
    assert!(!conversations.forget("42").await, "there is no Redis");
    assert!(conversations.tell("42").await.conversations.is_empty());
    assert_eq!(conversations.figures().0, 0);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_that_are_idle_for_a_day_are_gone() {
    let conversations = Arc::new(Conversations::new(16 << 20, None).unwrap());
    conversations.start();
    for number in 0..10_000 {
        let name = name(&conversations, &number.to_string(), "sk-a");
        conversations.note(&name, "openai", DAY, Some(snapshot(4)), request(4, 0));
    }
    let (count, bytes) = conversations.figures();
    assert_eq!(count, 10_000);
    assert!((1 << 20..16 << 20).contains(&bytes), "{bytes}");
    tokio::time::advance(Duration::from_secs(24 * 3600 - 1)).await;
    tokio::task::yield_now().await;
    let kept = name(&conversations, "7", "sk-a");
    conversations.note(&kept, "openai", DAY, Some(snapshot(6)), request(6, 0));
    assert_eq!(conversations.figures().0, 10_000);
    assert_eq!(conversations.tell("8").await.conversations.len(), 1);
    // To the second, for whoever asks.
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(conversations.tell("8").await.conversations.is_empty());
    assert_eq!(conversations.tell("7").await.conversations.len(), 1);
    // And within a minute of the memory.
    tokio::time::sleep(SWEEP).await;
    assert_eq!(conversations.figures().0, 1);
    tokio::time::sleep(DAY + SWEEP).await;
    assert_eq!(conversations.figures(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn one_that_begins_again_begins_anew() {
    let conversations = Conversations::new(1 << 20, None).unwrap();
    let one = name(&conversations, "c", "sk");
    conversations.note(&one, "openai", DAY, Some(snapshot(9)), request(9, 30));
    tokio::time::advance(DAY).await;
    conversations.note(&one, "openai", DAY, Some(snapshot(1)), request(1, 0));
    let [told] = conversations.tell("c").await.conversations.try_into().unwrap();
    assert_eq!((told.requests, told.saved.messages, told.total_messages), (1, 0, 1));
}

#[test]
fn never_more_than_the_budget() {
    let budget = 256 << 10;
    let conversations = Conversations::new(budget, None).unwrap();
    for number in 0..20_000 {
        let name = name(&conversations, &format!("{number}"), "sk");
        conversations.note(&name, "openai", DAY, Some(snapshot(4)), request(4, 0));
        assert!(conversations.figures().1 <= budget);
    }
    // However many credentials show one identifier.
    for number in 0..1000 {
        let name = name(&conversations, "shared", &format!("sk-{number}"));
        conversations.note(&name, "openai", DAY, Some(snapshot(4)), request(4, 0));
    }
    assert!(conversations.figures().1 <= budget);

    let none = Conversations::new(0, None).unwrap();
    let name = name(&none, "c", "sk");
    none.note(&name, "openai", DAY, Some(snapshot(4)), request(4, 0));
    assert_eq!((none.are_tracked(), none.figures()), (false, (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_remembered_for_ten_minutes() {
    let refused = Refused::new().unwrap();
    let (id, credentials) = whose("c", "sk-a");
    let one = refused.name(&Whose { id, route: "openai", credentials: &credentials }, b"hello");
    let third = refused.name(&Whose { id, route: "openai", credentials: &credentials }, b"good day");
    let (id, credentials) = whose("c", "sk-b");
    let other = refused.name(&Whose { id, route: "openai", credentials: &credentials }, b"hello");
    assert_eq!(refused.taken(one), None);
    refused.note(one, Form::Whole);
    assert_eq!([one, other, third].map(|name| refused.taken(name)), [Some(Form::Whole), None, None]);
    tokio::time::advance(Duration::from_secs(599)).await;
    assert_eq!(refused.taken(one), Some(Form::Whole));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(refused.taken(one), None);
}
