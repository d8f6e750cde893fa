//! Where a conversation is to be cut, by trying every place, from what its generator says of it.

use pillion::window::{Policy, Untouched};

use crate::histories::{Element, Feature, History};
use crate::strict::Dialect;

/// What is to come of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Messages behind the head that are left out; in shadow, that would have been.
    pub(crate) removed: usize,
    /// Messages behind the head that are forwarded, in shadow all of them; `None` when they cannot be told.
    pub(crate) forwarded: Option<usize>,
    pub(crate) untouched: Option<Untouched>,
}

/// A conversation and its limits.
pub(crate) struct Places<'h> {
    dialect: Dialect,
    elements: &'h [Element],
    policy: &'h Policy,
    /// Tokens of each; empty where none are limited.
    weights: Vec<u64>,
    /// Where the request was cut that each thinking element is the answer to.
    frozen: Vec<Option<usize>>,
}

impl<'h> Places<'h> {
    pub(crate) fn new(history: &'h History, policy: &'h Policy, weigh: impl Fn(&Element) -> u64) -> Self {
        let elements = history.behind_head();
        let weights = if policy.max_tokens > 0 { elements.iter().map(weigh).collect() } else { Vec::new() };
        let frozen = vec![None; elements.len()];
        let mut places = Self { dialect: history.dialect, elements, policy, weights, frozen };
        for (n, _) in elements.iter().enumerate().filter(|(_, element)| element.thinking > 0) {
            places.frozen[n] = Some(places.cut(n).map_or(0, |(cut, _)| cut));
        }
        places
    }

    /// Whether the messages from one to before another keep within every limit.
    fn fit(&self, from: usize, to: usize) -> bool {
        let policy = self.policy;
        let (Some(first), Some(last)) = (self.elements[..to].get(from), self.elements[..to].last()) else {
            return true;
        };
        let bytes = (last.span.end - first.span.start) as u64;
        let tokens = || self.weights[from..to].iter().sum::<u64>();
        (policy.max_messages == 0 || to - from <= policy.max_messages)
            && (policy.max_bytes == 0 || bytes <= policy.max_bytes)
            && (policy.max_tokens == 0 || tokens() <= policy.max_tokens)
    }

    /// Where the limits cut the first so many messages: the first place that fits at a step, or else at all, or else
    /// before the last turn.
    fn by_limits(&self, count: usize) -> Option<usize> {
        let turns: Vec<usize> = (0..count).filter(|n| self.elements[*n].turn).collect();
        let step = match self.policy.max_messages {
            0 => self.policy.step.max(1),
            most => self.policy.step.clamp(1, most),
        };
        let steps = (1..=count / step).filter_map(|k| turns.iter().copied().find(|turn| *turn >= k * step));
        let fits = |from: &usize| self.fit(*from, count);
        let stepped = std::iter::once(0).chain(steps).find(fits);
        stepped.or_else(|| turns.iter().copied().find(fits)).or(turns.last().copied())
    }

    /// Where the first so many messages are cut, and whether thinking keeps the cut from where the limits are.
    pub(crate) fn cut(&self, count: usize) -> Option<(usize, bool)> {
        let limits = self.by_limits(count)?;
        // To Responses, thinking of earlier turns does not matter.
        let turn =
            (0..count).rfind(|n| self.elements[*n].turn).filter(|_| self.dialect == Dialect::Responses);
        let bound = (turn.unwrap_or(0)..count).rfind(|n| self.elements[*n].thinking > 0);
        Some(match bound.filter(|bound| *bound >= limits).and_then(|bound| self.frozen[bound]) {
            Some(frozen) => (frozen, frozen != limits),
            None => (limits, false),
        })
    }

    /// Where the request was cut that this message, which thinks, is the answer to.
    pub(crate) fn frozen(&self, n: usize) -> usize {
        self.frozen[n].unwrap_or(0)
    }
}

/// What is to come of all of it.
pub(crate) fn expect(history: &History, places: &Places<'_>) -> Expected {
    let elements = history.behind_head();
    let whole = |forwarded: Option<usize>, untouched| Expected { removed: 0, forwarded, untouched };
    let all = Some(elements.len());
    let hindrance = history.hindrance();
    match hindrance {
        Some(Feature::Bom) => return whole(None, Some(Untouched::Bom)),
        Some(Feature::Invalid) => return whole(None, Some(Untouched::InvalidJson)),
        Some(Feature::TooDeep) => return whole(None, Some(Untouched::TooDeep)),
        Some(Feature::Duplicate) => return whole(None, Some(Untouched::Duplicate)),
        Some(Feature::Unreadable) => return whole(None, Some(Untouched::UnreadableMessage)),
        _ => {}
    }
    if elements.is_empty() {
        return whole(all, None);
    }
    let Some((cut, is_frozen)) = places.cut(elements.len()) else {
        return whole(all, Some(Untouched::NoUserTurn));
    };
    let untouched = is_frozen.then_some(Untouched::Thinking);
    if cut == 0 {
        return whole(all, untouched);
    }
    if elements.iter().any(|element| element.breakpoint) {
        return whole(all, Some(Untouched::CacheBreakpoint));
    }
    match hindrance {
        Some(Feature::ServerState) => whole(all, Some(Untouched::ServerState)),
        Some(Feature::ItemReference) => whole(all, Some(Untouched::ItemReference)),
        Some(Feature::Compaction) => whole(all, Some(Untouched::Compaction)),
        Some(Feature::NotUtf8) => whole(None, Some(Untouched::NotUtf8)),
        _ if places.policy.shadow => Expected { removed: cut, forwarded: all, untouched },
        _ => Expected { removed: cut, forwarded: Some(elements.len() - cut), untouched },
    }
}
