//! Text of header values, written on the stack and without the formatting machinery: this runs on every response.

use std::time::Duration;

use http::HeaderValue;

/// The longest text there can be: five numbers of 20 digits and the words between them.
const LONGEST: usize = 224;

/// Text of a header.
pub(super) struct Text {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self { bytes: [0; LONGEST], len: 0 }
    }
}

impl Text {
    pub(super) fn push(&mut self, text: &str) {
        let end = self.len + text.len();
        if let Some(place) = self.bytes.get_mut(self.len..end) {
            place.copy_from_slice(text.as_bytes());
            self.len = end;
        }
    }

    /// Seconds with six decimals.
    pub(super) fn seconds(&mut self, time: Duration) {
        self.digits(time.as_secs(), 1);
        self.push(".");
        self.digits(u64::from(time.subsec_micros()), 6);
    }

    /// Milliseconds with two decimals.
    pub(super) fn metric(&mut self, name: &str, time: Duration) {
        self.push(name);
        let hundredths = time.as_micros() as u64 / 10;
        self.digits(hundredths / 100, 1);
        self.push(".");
        self.digits(hundredths % 100, 2);
    }

    /// A number, filled with zeros up to `width`.
    pub(super) fn digits(&mut self, number: u64, width: usize) {
        let len = (number.checked_ilog10().unwrap_or(0) as usize + 1).max(width);
        let Some(place) = self.bytes.get_mut(self.len..self.len + len) else { return };
        let mut rest = number;
        for digit in place.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        self.len += len;
    }

    pub(super) fn value(&self) -> Option<HeaderValue> {
        HeaderValue::from_bytes(self.bytes.get(..self.len)?).ok()
    }
}
