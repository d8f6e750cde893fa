//! Rules that nothing reaches: one before them takes all that they would.

use crate::config::problem::{Findings, KeyPath};
use crate::config::rule::Rule;

/// Notes every rule behind one that takes everything it takes. Patterns are compared as text: of two that only look
/// different nothing is said.
pub(super) fn refuse_unreachable(rules: &[Rule], at: &KeyPath, findings: &mut Findings) {
    for (index, rule) in rules.iter().enumerate() {
        let Some(before) = rules.iter().take(index).position(|earlier| takes_all(earlier, rule)) else {
            continue;
        };
        let at = at.item(index);
        if findings.touches(&at) {
            continue;
        }
        let shown = rule.name.clone().unwrap_or_default();
        let rule = format!("rules[{before}] takes every request that this one would: it is never reached");
        findings.add_value(
            &at.key("name"),
            shown,
            rule,
            format!("put it before rules[{before}], or remove it"),
        );
    }
}

fn takes_all(earlier: &Rule, later: &Rule) -> bool {
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let (wide, narrow) = (list(&earlier.methods), list(&later.methods));
    // A rule for any method leaves OPTIONS to others.
    let any = wide.is_empty() && !narrow.iter().any(|method| method == "OPTIONS");
    let methods = any || !narrow.is_empty() && narrow.iter().all(|method| wide.contains(method));
    let path = earlier.path.is_none() || earlier.path == later.path;
    let has = earlier.query_has.is_none() || earlier.query_has == later.query_has;
    let lacked = list(&later.query_lacks);
    let lacks = list(&earlier.query_lacks).iter().all(|name| lacked.contains(name));
    methods && path && has && lacks
}
