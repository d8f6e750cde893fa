//! Upstreams whose address is another store in another place. Instances that share a Redis tell stores apart by the URL
//! alone.

use std::net::IpAddr;

use crate::config::Redis;
use crate::config::layers::built_in;
use crate::plan::{Action, Plan};

/// Says that answers may cross, where Redis may be used from several places, nothing was said to keep them apart there, and
/// a route stores answers of an upstream that each place has for itself.
pub(super) fn note(redis: Option<&Redis>, routes: &[Plan]) -> Option<String> {
    let redis = redis.filter(|redis| !is_loopback(redis.address.host()))?;
    let usual = built_in().redis.as_ref().and_then(|redis| redis.prefix.as_deref());
    if usual != Some(redis.prefix.as_str()) {
        return None;
    }
    let stores = |plan: &&Plan| plan.rules.iter().any(|rule| matches!(rule.action, Action::Cache(_)));
    let plan = routes.iter().filter(stores).find(|plan| is_local(plan.upstream.host()))?;
    Some(format!(
        "route {} stores answers of {} in a Redis that other environments may use, too, where that may be another store: give \
         each environment a redis.prefix of its own",
        plan.name, plan.upstream.authority
    ))
}

/// The machine's own, or a name that only its network knows.
fn is_local(host: &str) -> bool {
    is_loopback(host) || !host.contains(['.', ':'])
}

fn is_loopback(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let named = host == "localhost" || host.ends_with(".localhost");
    named || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}
