//! Where the history is cut: a pure function of its elements, seen one after the other, so that every request of a
//! conversation agrees with the one before, although nothing is remembered between them.
//!
//! A cut falls only where a turn begins. Of the places that leave no more than the limits allow the first one holds, of
//! those at or behind a multiple of `step` if there is one: so the beginning of what is forwarded, and with it the
//! provider's prompt cache, stays for as many messages. What exceeds a limit once, exceeds it with every message more,
//! so places are forgotten as they are passed, and what is remembered does not grow with what is left out.
//!
//! The last turn always goes, even when it alone exceeds the limits: the upstream may still take it, and half a turn
//! means nothing.

use std::collections::VecDeque;
use std::ops::Range;

use super::element::{Element, Role};
use super::tokens::Weighing;
use super::{Policy, Untouched};

/// Places that are remembered at most. Where more turns are within the limits every other one is forgotten: of thousands of
/// turns a few more are left out.
const PLACES: usize = 1024;

/// Where the history may be cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Elements before it, behind the head.
    pub(super) index: usize,
    /// Its offset in the body.
    pub(super) start: usize,
    /// Tokens before it, estimated.
    pub(super) tokens: u64,
    /// The first turn at or behind a multiple of `step`.
    stepped: bool,
    /// Its number among the places.
    ordinal: usize,
}

/// The elements behind the head, as far as they decide about the cut.
#[derive(Debug)]
pub(super) struct Cutting<'a> {
    policy: &'a Policy,
    /// Where tokens are counted rather than estimated.
    weighing: Option<Weighing<'a>>,
    /// Elements so far.
    pub(super) count: usize,
    /// Tokens so far, estimated.
    pub(super) tokens: u64,
    /// From the first element's first byte to the last one's last.
    pub(super) span: Range<usize>,
    /// Calls that wait for their results.
    open: u32,
    /// Calls whose results come before anybody else speaks.
    asked: u32,
    /// The next turn at or behind this index is at a step.
    next_step: usize,
    /// Beginnings of turns (and of everything) that leave no more than the limits allow, in order.
    places: VecDeque<Place>,
    /// How many there were, and which part of them is remembered.
    ordinal: usize,
    stride: usize,
    last_turn: Option<Place>,
    /// The cut under which thinking was made that is here.
    frozen: Option<Place>,
    /// The last element with such thinking.
    bound: usize,
    /// An element has a breakpoint of the prompt cache.
    breakpoint: bool,
}

impl<'a> Cutting<'a> {
    pub(super) fn new(policy: &'a Policy, weighing: Option<Weighing<'a>>) -> Self {
        Self {
            policy,
            weighing,
            count: 0,
            tokens: 0,
            span: 0..0,
            open: 0,
            asked: 0,
            next_step: 0,
            places: VecDeque::new(),
            ordinal: 0,
            stride: 1,
            last_turn: None,
            frozen: None,
            bound: 0,
            breakpoint: false,
        }
    }

    /// The next element, and where it lies.
    pub(super) fn push(&mut self, element: &Element, span: Range<usize>) {
        let place =
            Place { index: self.count, start: span.start, tokens: self.tokens, stepped: true, ordinal: 0 };
        if self.count == 0 {
            // Nothing is left out.
            self.span.start = span.start;
            self.places.push_back(place);
            self.next_step = self.step();
        }
        if element.role == Role::User && !element.carrier && self.open + self.asked == 0 {
            self.begin_turn(place);
        } else if element.thinking {
            self.freeze();
        }
        if element.role == Role::Assistant {
            self.asked = 0;
        }
        self.asked = self.asked.saturating_add(element.asks).saturating_sub(element.answers);
        self.open = self.open.saturating_add(element.opens).saturating_sub(element.closes);
        self.breakpoint |= element.breakpoint;
        self.count += 1;
        self.tokens += element.estimate(span.len());
        self.span.end = span.end;
        if let Some(weighing) = &mut self.weighing {
            weighing.push(span, element.media);
        }
        self.forget();
    }

    fn begin_turn(&mut self, place: Place) {
        let stepped = place.index >= self.next_step;
        if stepped {
            self.next_step = (place.index / self.step() + 1) * self.step();
        }
        let place = Place { stepped, ..place };
        self.last_turn = Some(place);
        if place.index > 0 {
            self.remember(place);
        }
        if !self.policy.dialect.binds_across_turns() {
            self.frozen = None;
        }
    }

    fn remember(&mut self, place: Place) {
        self.ordinal += 1;
        if self.places.len() == PLACES {
            let steps = self.places.iter().filter(|place| place.stepped).count();
            if steps > PLACES / 2 {
                self.stride *= 2;
            }
            let stride = self.stride;
            self.places.retain(|place| place.stepped && place.ordinal.is_multiple_of(stride));
        }
        if self.ordinal.is_multiple_of(self.stride) {
            self.places.push_back(Place { ordinal: self.ordinal, ..place });
        }
    }

    /// A step beyond `max_messages` would leave the last turn alone.
    fn step(&self) -> usize {
        let Policy { step, max_messages, .. } = *self.policy;
        if max_messages == 0 { step.max(1) } else { step.clamp(1, max_messages) }
    }

    /// The element to come was made by the upstream out of what is here, cut as it would be now.
    fn freeze(&mut self) {
        self.frozen = self.place().map(|(place, _)| place).or(Some(Place::default()));
        self.bound = self.count;
    }

    /// Forgets places before which too much is left.
    fn forget(&mut self) {
        let Policy { max_messages, max_bytes, max_tokens, .. } = *self.policy;
        let (count, end, tokens) = (self.count, self.span.end, self.tokens);
        let estimated = max_tokens > 0 && self.weighing.is_none();
        let exceeds = |place: &Place| {
            max_messages > 0 && count - place.index > max_messages
                || max_bytes > 0 && (end - place.start) as u64 > max_bytes
                || estimated && tokens - place.tokens > max_tokens
        };
        while self.places.front().is_some_and(exceeds) {
            self.places.pop_front();
        }
        if let Some(weighing) = &mut self.weighing {
            let first = self.places.front().or(self.last_turn.as_ref());
            weighing.forget_before(first.map_or(count, |place| place.index));
        }
    }

    /// Where the limits cut. `None` when one is exceeded and there is no turn to cut before.
    fn by_limits(&mut self) -> Option<Place> {
        if let Some(weighing) = &mut self.weighing {
            let first = weighing.first_within();
            while self.places.front().is_some_and(|place| place.index < first) {
                self.places.pop_front();
            }
        }
        let stepped = self.places.iter().find(|place| place.stepped);
        stepped.or(self.places.front()).or(self.last_turn.as_ref()).copied()
    }

    /// Where the cut is, and why it is not where the limits cut.
    fn place(&mut self) -> Option<(Place, Option<Untouched>)> {
        let by_limits = self.by_limits();
        match (self.frozen, by_limits) {
            (Some(frozen), Some(limits)) if self.bound >= limits.index => {
                Some((frozen, (frozen.index != limits.index).then_some(Untouched::Thinking)))
            }
            _ => by_limits.map(|place| (place, None)),
        }
    }

    /// The cut under which thinking was made that stays, whatever else speaks against it. `None` where it was made of the
    /// whole history, and where there is none.
    pub(super) fn bound_to(&mut self) -> Option<Place> {
        let limits = self.by_limits()?;
        self.frozen.filter(|frozen| self.bound >= limits.index && frozen.index > 0)
    }

    /// Where the history is cut in the end. The place has the index 0 where nothing is left out.
    pub(super) fn end(&mut self) -> (Place, Option<Untouched>) {
        match self.place() {
            None if self.count == 0 => (Place::default(), None),
            None => (Place::default(), Some(Untouched::NoUserTurn)),
            // Wherever it is: bots move theirs from request to request, and thinking that was made before one that
            // was in the way is bound to all of it.
            Some((place, _)) if self.breakpoint && place.index > 0 => {
                (Place::default(), Some(Untouched::CacheBreakpoint))
            }
            Some(found) => found,
        }
    }
}
