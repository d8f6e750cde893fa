//! Steps of the path that need no socket, each by itself: what `benches/` counts. `respond` takes the same steps, and
//! calls none of this.

use http::{HeaderName, HeaderValue, request};

use super::route::Found;
use super::{Error, Kind, Proxy, Seen};
use crate::plan::Operation;

impl Proxy {
    /// What is done to the fields of a request that goes to `host` with content of `length` bytes: looked through, taken
    /// off, added.
    pub fn admit_headers(
        &self,
        head: &mut request::Parts,
        id_header: &HeaderName,
        host: &HeaderValue,
        length: u64,
    ) -> Result<(), Error> {
        let seen = Seen::of(&head.headers, &self.pseudonym);
        seen.admit(&head.method, head.version)?;
        seen.forward(&mut head.headers, id_header, host, &self.via, Some(length));
        Ok(())
    }

    /// Where a request belongs: its route, and the rule that says what it is for.
    pub fn match_request(&self, listener: usize, head: &request::Parts) -> Result<Operation, Error> {
        let table = self.tables.get(listener).ok_or_else(|| Error::new(Kind::NoRoute, "no such listener"))?;
        let Found { route, path, .. } = table.find(&head.uri)?;
        Ok(route.rule(route.plan.find_rule(&head.method, &path, head.uri.query())).operation)
    }
}
