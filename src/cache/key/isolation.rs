//! Who never shares a stored response: pairs of searches that differ in one thing, and pairs that differ in none.
//!
//! Some thousands of pairs each time, a million by `make model`.

use http::HeaderValue;
use proptest::prelude::*;

use super::*;

/// Some that are known, and some of a gateway's own.
const CREDENTIALS: [&str; 5] =
    ["authorization", "api-key", "cf-access-jwt-assertion", "x-user-id", "x-model-provider"];

/// From here on not every integer is a double of its own.
const EXACT: u64 = 1 << 53;

fn pairs() -> u32 {
    if std::env::var_os("PILLION_MODEL").is_some() { 1_000_000 } else { 5_000 }
}

/// What a search says, each a keyed field.
#[derive(Clone, Debug, PartialEq)]
struct Search {
    credential: (usize, String),
    /// In the path, as most stores have it.
    namespace: String,
    /// In the content, as others have it.
    tenant: String,
    top_k: u32,
    filter: String,
    flag: bool,
    /// As spelled: each number ends with a digit.
    vector: Vec<String>,
    above: u64,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Credential,
    CredentialHeader,
    Namespace,
    Tenant,
    TopK,
    Filter,
    Flag,
    LastDigit,
    AboveExact,
}

impl Search {
    /// The same search but for one thing.
    fn but(&self, change: Change, random: u64) -> Search {
        let mut other = self.clone();
        let place = random as usize;
        // Another text: one letter more, less, or another one.
        let altered = |text: &str| {
            let mut letters: Vec<char> = text.chars().collect();
            match random % 3 {
                0 if !letters.is_empty() => _ = letters.remove(place % letters.len()),
                1 if !letters.is_empty() => {
                    let at = place % letters.len();
                    letters[at] = if letters[at] == 'x' { 'y' } else { 'x' };
                }
                _ => letters.insert(place % (letters.len() + 1), 'x'),
            }
            letters.into_iter().collect::<String>()
        };
        match change {
            Change::Credential => other.credential.1 = altered(&self.credential.1),
            Change::CredentialHeader => other.credential.0 = (self.credential.0 + 1 + place % 4) % 5,
            Change::Namespace => other.namespace = altered(&self.namespace),
            Change::Tenant => other.tenant = altered(&self.tenant),
            Change::TopK => other.top_k = self.top_k ^ (1 << (random % 31)),
            Change::Filter => other.filter = altered(&self.filter),
            Change::Flag => other.flag = !self.flag,
            Change::LastDigit => {
                let at = place % self.vector.len();
                let digit = other.vector[at].pop().unwrap().to_digit(10).unwrap();
                other.vector[at].push(char::from_digit((digit + 1 + random as u32 % 9) % 10, 10).unwrap());
            }
            Change::AboveExact => other.above = self.above ^ 1,
        }
        other
    }

    /// The content, its members in some order and some white space between.
    fn content(&self, seed: u64) -> String {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut members = [
            format!("\"vector\":[{}]", self.vector.join(if random.bool() { "," } else { " , " })),
            format!("\"topK\":{}", self.top_k),
            format!("\"tenant\" :{}", serde_json::to_string(&self.tenant).unwrap()),
            format!("\"filter\":{}", serde_json::to_string(&self.filter).unwrap()),
            format!("\"includeMetadata\": {}", self.flag),
            format!("\"after\":{{\"id\":{}}}", self.above),
        ];
        random.shuffle(&mut members);
        let white = ["", " ", "\n\t"][random.usize(..3)];
        format!("{{{white}{}{white}}}", members.join(&format!(",{white}")))
    }

    fn key(&self, spelling: u64) -> Key {
        let policy = Policy::usual();
        let mut headers = HeaderMap::new();
        headers.insert(CREDENTIALS[self.credential.0], HeaderValue::from_str(&self.credential.1).unwrap());
        let (path, content) = (format!("/query/{}", self.namespace), self.content(spelling));
        let names = Keyring::seeded([7; 16]).names("https://vector.test", &policy);
        names.key(&Identity {
            method: &Method::POST,
            path: &path,
            query: None,
            headers: &headers,
            body: content.as_bytes(),
        })
    }
}

prop_compose! {
    fn searches()(
        credential in (0_usize..5, "[a-zA-Z0-9 ]{0,12}"),
        namespace in "[a-z0-9-]{0,8}",
        tenant in "[a-z0-9\u{e9}-]{0,8}",
        top_k in 0..=i32::MAX as u32,
        filter in "[a-z]{1,4} = '[a-z0-9\"\\\\ ]{0,6}'",
        flag in any::<bool>(),
        vector in prop::collection::vec("-?0\\.[0-9]{1,17}", 1..6),
        above in EXACT..(u64::MAX >> 1),
    ) -> Search {
        Search { credential, namespace, tenant, top_k, filter, flag, vector, above }
    }
}

fn changes() -> impl Strategy<Value = Change> {
    use Change::{
        AboveExact, Credential, CredentialHeader, Filter, Flag, LastDigit, Namespace, Tenant, TopK,
    };
    prop::sample::select(vec![
        Credential,
        CredentialHeader,
        Namespace,
        Tenant,
        TopK,
        Filter,
        Flag,
        LastDigit,
        AboveExact,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(pairs()))]

    #[test]
    fn searches_that_differ_in_one_thing_share_no_key(
        one in searches(), change in changes(), random in any::<u64>(), spellings in any::<[u64; 2]>(),
    ) {
        let other = one.but(change, random);
        prop_assert_ne!(&one, &other, "nothing is told by this pair");
        prop_assert_ne!(one.key(spellings[0]), other.key(spellings[1]));
        prop_assert_eq!(one.key(spellings[0]), one.key(spellings[1]), "order and white space do not count");
    }
}
