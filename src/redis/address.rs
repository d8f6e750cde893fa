//! Where Redis is, and who we are there.

use percent_encoding::percent_decode_str;
use redis::RedisConnectionInfo;

/// The port of Redis.
const PORT: u16 = 6379;

/// A Redis, from the configuration. Its `Debug` and `Display` tell no password.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
    tls: bool,
    user: Option<String>,
    password: Option<String>,
    database: i64,
}

/// What is wrong with an address, without quoting it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadAddress(pub &'static str);

impl Address {
    /// `redis://[[user]:password@]host[:port][/database]`; `rediss://` is the same over TLS.
    pub fn parse(url: &str) -> Result<Self, BadAddress> {
        let (tls, rest) = match (url.strip_prefix("redis://"), url.strip_prefix("rediss://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(BadAddress("it begins with `redis://` or `rediss://`")),
        };
        if rest.contains(['?', '#']) {
            return Err(BadAddress("it has no parameters: what they would say is said by other keys"));
        }
        // The last `@`: passwords are written with all kinds of characters.
        let (credentials, rest) = rest.rsplit_once('@').map_or((None, rest), |(who, rest)| (Some(who), rest));
        let (place, database) = rest.split_once('/').unwrap_or((rest, ""));
        let database = match database.trim_end_matches('/') {
            "" => 0,
            text => text.parse().ok().filter(|n| *n >= 0).ok_or(BadAddress("the database is a number"))?,
        };
        let (host, port) = host_and_port(place)?;
        let decoded = |text: &str| {
            Some(percent_decode_str(text).decode_utf8_lossy().into_owned()).filter(|text| !text.is_empty())
        };
        let (user, password) = match credentials {
            None => (None, None),
            Some(text) => {
                let (user, password) = text
                    .split_once(':')
                    .ok_or(BadAddress("credentials are `user:password` or `:password`"))?;
                (decoded(user), decoded(password))
            }
        };
        Ok(Self { host, port, tls, user, password, database })
    }

    /// The native endpoint of what Upstash gives for its REST API: the same host, the token as the password.
    pub fn upstash(rest_url: &str, token: &str) -> Result<Self, BadAddress> {
        let place = rest_url.trim().trim_end_matches('/');
        let place = place.strip_prefix("https://").unwrap_or(place);
        if place.contains(['/', '@', '?']) || place.is_empty() || token.is_empty() {
            return Err(BadAddress(
                "UPSTASH_REDIS_REST_URL is `https://` and a host, UPSTASH_REDIS_REST_TOKEN is a token",
            ));
        }
        let (host, _) = host_and_port(place)?;
        let password = Some(token.trim().to_owned());
        Ok(Self { host, port: PORT, tls: true, user: Some("default".into()), password, database: 0 })
    }

    /// A name, or an address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn is_tls(&self) -> bool {
        self.tls
    }

    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    pub(super) fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    pub(super) fn database(&self) -> i64 {
        self.database
    }

    pub(super) fn greeting(&self) -> RedisConnectionInfo {
        let mut info = RedisConnectionInfo::default().set_db(self.database).set_skip_set_lib_name();
        if let Some(user) = &self.user {
            info = info.set_username(user);
        }
        if let Some(password) = &self.password {
            info = info.set_password(password);
        }
        info
    }
}

fn host_and_port(place: &str) -> Result<(String, u16), BadAddress> {
    let bracketed = place.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (host, port) = match bracketed {
        Some((host, rest)) => (host, rest.strip_prefix(':').unwrap_or(rest)),
        None => place.split_once(':').unwrap_or((place, "")),
    };
    if host.is_empty() {
        return Err(BadAddress("it names a host"));
    }
    let port = match port {
        "" => PORT,
        text => text.parse().ok().filter(|port| *port > 0).ok_or(BadAddress("the port is 1 to 65535"))?,
    };
    Ok((host.to_owned(), port))
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{open}{}{close}:{}", self.host, self.port)
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Address({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (url, shown, user, password, database) in [
            ("redis://h", "redis://h:6379", None, None, 0),
            ("rediss://h:7000/3", "rediss://h:7000", None, None, 3),
            ("redis://:p%40ss@h", "redis://h:6379", None, Some("p@ss"), 0),
            ("redis://u:p@ss:w/rd@h:1/0", "redis://h:1", Some("u"), Some("p@ss:w/rd"), 0),
            ("redis://[::1]:6380", "redis://[::1]:6380", None, None, 0),
            ("redis://[::1]", "redis://[::1]:6379", None, None, 0),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!(address.to_string(), shown, "{url}");
            assert_eq!((address.user(), address.password()), (user, password), "{url}");
            assert_eq!(address.database(), database, "{url}");
            assert!(!format!("{address:?}").contains("p@ss"));
        }
        for url in [
            "http://h",
            "redis://",
            "redis://h:0",
            "redis://h:x",
            "redis://h/x",
            "redis://h/-1",
            "redis://u@h",
        ] {
            assert!(Address::parse(url).is_err(), "{url}");
        }
        assert!(Address::parse("redis://h?protocol=3").is_err());
    }

    #[test]
    fn the_endpoint_of_upstash() {
        let address = Address::upstash("https://eu1-x.upstash.io", "tok").unwrap();
        assert_eq!(address.to_string(), "rediss://eu1-x.upstash.io:6379");
        assert_eq!((address.user(), address.password()), (Some("default"), Some("tok")));
        assert!(Address::upstash("", "tok").is_err());
        assert!(Address::upstash("https://x.upstash.io", "").is_err());
        assert!(Address::upstash("https://x.upstash.io/path", "t").is_err());
    }
}
