//! Addresses to listen on: how they are written, which collide, and whether an upstream is one of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};
use std::path::PathBuf;

use super::file::OneOrMany;
use super::problem::{Findings, KeyPath};
use crate::plan::Address;
use crate::upstream::Target;

/// A listener, and where it is written.
#[derive(Clone, Debug)]
pub(super) struct Listener {
    pub(super) at: KeyPath,
    pub(super) address: Address,
}

const RULE: &str = "an address is `host:port` or `unix:/path`";

/// Reads the addresses of one key.
pub(super) fn read(written: Option<&OneOrMany>, at: &KeyPath, findings: &mut Findings) -> Vec<Listener> {
    let mut listeners = Vec::new();
    for (index, text) in written.map(OneOrMany::each).unwrap_or_default() {
        let at = index.map_or_else(|| at.clone(), |index| at.item(index));
        if let Some(address) = read_one(text, &at, findings) {
            listeners.push(Listener { at, address });
        }
    }
    listeners
}

/// Reads one address; nothing where variables left it empty.
pub(super) fn read_one(text: &str, at: &KeyPath, findings: &mut Findings) -> Option<Address> {
    if findings.touches(at) || findings.emptied(at) {
        return None;
    }
    match parse(text) {
        Ok(address) => Some(address),
        Err(suggestion) => {
            let expanded = findings.expanded(at);
            let suggestion = if expanded { "127.0.0.1:8080".to_owned() } else { suggestion };
            findings.add_value(at, text, RULE, suggestion);
            None
        }
    }
}

/// An address, or what might have been meant.
fn parse(text: &str) -> Result<Address, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        let absolute = path.starts_with('/') && path.len() > 1;
        return if absolute {
            Ok(Address::Unix(PathBuf::from(path)))
        } else {
            Err("unix:/run/pillion.sock".to_owned())
        };
    }
    if text.starts_with('/') {
        return Err(format!("unix:{text}"));
    }
    if let Some((_, rest)) = text.split_once("://") {
        return Err(rest.trim_end_matches('/').to_owned());
    }
    if text.parse::<u16>().is_ok() {
        return Err(format!("127.0.0.1:{text}"));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(if is_host(text) { format!("{text}:8080") } else { "127.0.0.1:8080".to_owned() });
    };
    match (is_host(host), port.parse::<u16>()) {
        (true, Ok(_)) => Ok(Address::Tcp(text.to_owned())),
        (true, Err(_)) => Err(format!("{host}:8080; a port is a number from 0 to 65535")),
        (false, Ok(port)) if host.is_empty() => {
            Err(format!("127.0.0.1:{port}, or 0.0.0.0:{port} for every interface"))
        }
        (false, _) if text.parse::<Ipv6Addr>().is_ok() => Err(format!("[{text}]:8080")),
        (false, _) => Err("127.0.0.1:8080".to_owned()),
    }
}

fn is_host(host: &str) -> bool {
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    bracketed.map_or(!host.is_empty() && host.chars().all(named), |ip| ip.parse::<Ipv6Addr>().is_ok())
}

/// Notes every pair that cannot be bound together.
pub(super) fn refuse_collisions(all: &[Listener], findings: &mut Findings) {
    for (index, listener) in all.iter().enumerate() {
        let taken = all.iter().take(index).find(|other| {
            // Routes may share a listener of their own: it is bound once.
            let shared = is_routes(&other.at) && is_routes(&listener.at) && other.address == listener.address;
            !shared && collide(&other.address, &listener.address)
        });
        if let Some(other) = taken {
            let rule = format!("{} listens on {} already", other.at, other.address);
            let shared =
                is_routes(&listener.at) && !is_routes(&other.at) && other.address == listener.address;
            let suggestion = if shared && other.at.to_string() != "admin.listen" {
                "leave `listen` out: a route without one is served there"
            } else {
                "another port"
            };
            findings.add_value(&listener.at, listener.address.to_string(), rule, suggestion);
        }
    }
}

fn is_routes(at: &KeyPath) -> bool {
    at.to_string().starts_with("routes[")
}

fn collide(a: &Address, b: &Address) -> bool {
    match (a, b) {
        (Address::Unix(a), Address::Unix(b)) => a == b,
        (Address::Tcp(a), Address::Tcp(b)) => match (split(a), split(b)) {
            (Some((host, port)), Some((other, same))) if port == same && port != 0 => {
                let (ours, theirs) = (addresses(host, port), addresses(other, port));
                host == other || ours.iter().any(|a| theirs.iter().any(|b| covers(*a, *b) || covers(*b, *a)))
            }
            _ => false,
        },
        _ => false,
    }
}

/// The listener that requests for `target` would come back to.
pub(super) fn reached_by<'a>(target: &Target, all: &'a [Listener]) -> Option<&'a Listener> {
    all.iter().find(|listener| {
        let Address::Tcp(address) = &listener.address else { return false };
        let Some((host, port)) = split(address).filter(|(_, port)| *port == target.port()) else {
            return false;
        };
        let ours = addresses(host, port);
        addresses(target.authority.host(), port).into_iter().any(|theirs| {
            // Connecting to 0.0.0.0 or [::] connects to this machine.
            let theirs = match theirs {
                IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
                ip => ip,
            };
            ours.iter().any(|ours| *ours == theirs || (ours.is_unspecified() && theirs.is_loopback()))
        })
    })
}

fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}

/// Binding `a` takes `b`, too. `[::]` is bound for both families on Linux.
fn covers(a: IpAddr, b: IpAddr) -> bool {
    a == b || (a.is_unspecified() && (a.is_ipv6() || b.is_ipv4()))
}

/// The addresses of a host; none where its name does not resolve, which is found out later by whoever needs it.
fn addresses(host: &str, port: u16) -> Vec<IpAddr> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return vec![ip.to_canonical()];
    }
    if bare.trim_end_matches('.').eq_ignore_ascii_case("localhost") {
        return vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    }
    let resolved = (bare, port).to_socket_addrs().into_iter().flatten();
    resolved.map(|address| address.ip().to_canonical()).collect()
}

#[cfg(test)]
mod tests {
    use http::uri::{Authority, Scheme};

    use super::*;

    fn listener(at: &str, address: &str) -> Listener {
        Listener { at: KeyPath::root().key(at), address: parse(address).unwrap() }
    }

    #[test]
    fn addresses_as_written() {
        for (text, expected) in [
            ("127.0.0.1:8080", Ok("127.0.0.1:8080")),
            ("localhost:0", Ok("localhost:0")),
            ("[::1]:8080", Ok("[::1]:8080")),
            ("unix:/run/p.sock", Ok("unix:/run/p.sock")),
            ("unix:run", Err("unix:/run/pillion.sock")),
            ("/run/p.sock", Err("unix:/run/p.sock")),
            ("8080", Err("127.0.0.1:8080")),
            (":8080", Err("127.0.0.1:8080, or 0.0.0.0:8080 for every interface")),
            ("localhost", Err("localhost:8080")),
            ("http://127.0.0.1:8080/", Err("127.0.0.1:8080")),
            ("::1", Err("[::1]:8080")),
            ("127.0.0.1:99999", Err("127.0.0.1:8080; a port is a number from 0 to 65535")),
            ("a b:1", Err("127.0.0.1:8080")),
            ("", Err("127.0.0.1:8080")),
        ] {
            let read = parse(text).map(|address| address.to_string());
            assert_eq!(read, expected.map(str::to_owned).map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn which_listeners_collide() {
        for (a, b, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("127.0.0.1:1", "localhost:1", true),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "[::]:1", true),
            ("0.0.0.0:1", "[::1]:1", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("unix:/a", "unix:/a", true),
            ("unix:/a", "unix:/b", false),
        ] {
            assert_eq!(collide(&parse(a).unwrap(), &parse(b).unwrap()), expected, "{a} {b}");
        }
    }

    #[test]
    fn which_upstreams_come_back_to_us() {
        for (listen, authority, expected) in [
            ("127.0.0.1:8080", "127.0.0.1:8080", true),
            ("127.0.0.1:8080", "localhost:8080", true),
            ("127.0.0.1:8080", "LOCALHOST:8080", true),
            ("127.0.0.1:8080", "0.0.0.0:8080", true),
            ("localhost:8080", "[::1]:8080", true),
            ("0.0.0.0:8080", "127.1.2.3:8080", true),
            ("[::]:8080", "localhost:8080", true),
            ("0.0.0.0:80", "localhost", true),
            ("127.0.0.1:8080", "[::ffff:127.0.0.1]:8080", true),
            ("127.0.0.1:8080", "127.0.0.2:8080", false),
            ("127.0.0.1:8080", "127.0.0.1:8081", false),
            ("0.0.0.0:8080", "192.0.2.1:8080", false),
            ("unix:/run/p.sock", "localhost:80", false),
        ] {
            let authority = Authority::from_static(authority);
            let target = Target { scheme: Scheme::HTTP, authority, base_path: String::new() };
            let found = reached_by(&target, &[listener("listen", listen)]).is_some();
            assert_eq!(found, expected, "{listen} {}", target.authority);
        }
    }
}
