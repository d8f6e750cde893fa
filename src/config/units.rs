//! Durations, sizes and ratios as people write them: `250ms`, `64MiB`, `10%`.
//!
//! A bare number is never guessed at where a unit could be meant: `60` is refused with `60s` as the suggestion.

use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

/// Why a text is not what it should be, and what might have been meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitError {
    /// How such a value is written.
    pub rule: &'static str,
    /// What to write instead.
    pub suggestion: String,
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (try {})", self.rule, self.suggestion)
    }
}

/// A span of time: `250ms`, `5s`, `5m`, `24h`, `7d`, or `0`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "Scalar")]
pub struct Time(pub Duration);

/// A number of bytes: `64MiB`, `512KiB`, `20MB`, or a bare number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "Scalar")]
pub struct Size(pub u64);

/// A part of a whole: `10%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Deserialize)]
#[serde(try_from = "Scalar")]
pub struct Ratio(pub f64);

const TIME_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Long enough for anything meant, short enough that adding it to now can never overflow.
const LONGEST: Duration = Duration::from_secs(3_650 * 86_400);

const SIZE_UNITS: [(&str, u64); 7] = [
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

impl Time {
    /// Reads a span of time.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        const RULE: &str = "a duration is a whole number and a unit: ms, s, m, h or d";
        let wrong = |suggestion: String| UnitError { rule: RULE, suggestion };
        let (digits, unit) = split(text);
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let Ok(number) = digits.parse::<u64>() else {
            return Err(wrong("250ms, 5s, 5m or 24h".to_owned()));
        };
        if let Some((_, millis)) = TIME_UNITS.iter().find(|(name, _)| *name == unit) {
            let time = number.checked_mul(*millis).map(Duration::from_millis);
            return time
                .filter(|time| *time <= LONGEST)
                .map(Self)
                .ok_or(UnitError { rule: "a duration is at most ten years", suggestion: "24h".to_owned() });
        }
        let meant = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "sec" | "secs" | "second" | "seconds" => "s",
            "msec" | "msecs" | "millis" | "milliseconds" => "ms",
            "min" | "mins" | "minute" | "minutes" => "m",
            "hr" | "hrs" | "hour" | "hours" => "h",
            "day" | "days" => "d",
            _ => return Err(wrong("250ms, 5s, 5m or 24h".to_owned())),
        };
        Err(wrong(format!("{number}{meant}")))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let (unit, size) = [("h", 3_600_000), ("m", 60_000), ("s", 1_000)]
            .into_iter()
            .find(|(_, size)| millis >= *size && millis.is_multiple_of(*size))
            .unwrap_or(if millis == 0 { ("s", 1) } else { ("ms", 1) });
        write!(f, "{}{unit}", millis / size)
    }
}

impl Size {
    /// Reads a number of bytes.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let wrong = |suggestion: String| UnitError {
            rule: "a size is a whole number of bytes, or one with a unit: KiB, MiB, GiB, KB, MB or GB",
            suggestion,
        };
        let (digits, unit) = split(text);
        let Ok(number) = digits.parse::<u64>() else {
            return Err(wrong("512KiB or 64MiB".to_owned()));
        };
        if unit.is_empty() {
            return Ok(Self(number));
        }
        if let Some((_, bytes)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) {
            // Beyond i64 neither YAML nor JSON Schema can carry the number.
            let size = number.checked_mul(*bytes).filter(|size| i64::try_from(*size).is_ok());
            return size.map(Self).ok_or_else(|| wrong("64MiB".to_owned()));
        }
        let meant = match unit.trim().to_ascii_lowercase().as_str() {
            "k" | "ki" | "kib" | "kb" => "KiB",
            "m" | "mi" | "mib" | "mb" => "MiB",
            "g" | "gi" | "gib" | "gb" => "GiB",
            "b" | "byte" | "bytes" => "B",
            _ => return Err(wrong("512KiB or 64MiB".to_owned())),
        };
        Err(wrong(format!("{number}{meant}")))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
            .into_iter()
            .find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size));
        match found {
            Some((unit, size)) => write!(f, "{}{unit}", self.0 / size),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Ratio {
    /// Reads a part of a whole.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let wrong = |suggestion: String| UnitError {
            rule: "a ratio is a number from 0 to 100 and a percent sign",
            suggestion,
        };
        let number = |text: &str| text.trim().parse::<f64>().ok();
        match (text.strip_suffix('%'), number(text)) {
            (Some(percent), _) => match number(percent) {
                Some(percent) if (0.0..=100.0).contains(&percent) => Ok(Self(percent / 100.0)),
                _ => Err(wrong("10%".to_owned())),
            },
            (None, Some(part)) if (0.0..1.0).contains(&part) => Err(wrong(format!("{}%", part * 100.0))),
            (None, Some(percent)) if (1.0..=100.0).contains(&percent) => Err(wrong(format!("{percent}%"))),
            _ => Err(wrong("10%".to_owned())),
        }
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0 * 100.0)
    }
}

/// The digits at the start, and the rest.
fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// What YAML makes of such a value: `0` arrives as a number, `5m` as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Whole(u64),
    Text(String),
}

impl Scalar {
    fn text(&self) -> String {
        match self {
            Scalar::Whole(number) => number.to_string(),
            Scalar::Text(text) => text.clone(),
        }
    }
}

impl TryFrom<Scalar> for Time {
    type Error = UnitError;

    fn try_from(scalar: Scalar) -> Result<Self, UnitError> {
        Self::parse(&scalar.text())
    }
}

impl TryFrom<Scalar> for Size {
    type Error = UnitError;

    fn try_from(scalar: Scalar) -> Result<Self, UnitError> {
        Self::parse(&scalar.text())
    }
}

impl TryFrom<Scalar> for Ratio {
    type Error = UnitError;

    fn try_from(scalar: Scalar) -> Result<Self, UnitError> {
        Self::parse(&scalar.text())
    }
}

/// The unit named by `x-unit` in the schema: how the walker checks a scalar.
pub(super) fn parse_as(unit: &str, text: &str) -> Result<(), UnitError> {
    match unit {
        "duration" => Time::parse(text).map(drop),
        "size" => Size::parse(text).map(drop),
        "ratio" => Ratio::parse(text).map(drop),
        _ => Ok(()),
    }
}

impl JsonSchema for Time {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"], "pattern": "^(0|[0-9]+(ms|s|m|h|d))$", "minimum": 0, "maximum": 0,
            "x-unit": "duration",
        })
    }
}

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"], "pattern": "^[0-9]+(B|KB|MB|GB|KiB|MiB|GiB)?$", "minimum": 0,
            "x-unit": "size",
        })
    }
}

impl JsonSchema for Ratio {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Ratio".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?%$", "x-unit": "ratio"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in [
            ("250ms", Ok(250)),
            ("5s", Ok(5_000)),
            ("5m", Ok(300_000)),
            ("24h", Ok(86_400_000)),
            ("7d", Ok(604_800_000)),
            ("0", Ok(0)),
            ("0s", Ok(0)),
            ("60", Err("60s")),
            ("5 min", Err("5m")),
            ("10 seconds", Err("10s")),
            ("1.5s", Err("250ms, 5s, 5m or 24h")),
            ("-1s", Err("250ms, 5s, 5m or 24h")),
            ("", Err("250ms, 5s, 5m or 24h")),
            ("5x", Err("250ms, 5s, 5m or 24h")),
            ("99999999999999999999s", Err("250ms, 5s, 5m or 24h")),
            ("9999999d", Err("24h")),
        ] {
            let read = Time::parse(text).map(|time| time.0.as_millis()).map_err(|e| e.suggestion);
            assert_eq!(read, expected.map_err(str::to_owned), "{text:?}");
        }
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("64MiB", Ok(64 << 20)),
            ("1GiB", Ok(1 << 30)),
            ("512KiB", Ok(512 << 10)),
            ("20MB", Ok(20_000_000)),
            ("0", Ok(0)),
            ("1024", Ok(1024)),
            ("64m", Err("64MiB")),
            ("64 MiB", Err("64MiB")),
            ("64mb", Err("64MiB")),
            ("much", Err("512KiB or 64MiB")),
            ("99999999999GiB", Err("64MiB")),
        ] {
            let read = Size::parse(text).map(|size| size.0).map_err(|e| e.suggestion);
            assert_eq!(read, expected.map_err(str::to_owned), "{text:?}");
        }
    }

    #[test]
    fn ratios() {
        for (text, expected) in [
            ("10%", Ok(0.1)),
            ("0%", Ok(0.0)),
            ("100%", Ok(1.0)),
            ("2.5%", Ok(0.025)),
            ("0.1", Err("10%")),
            ("10", Err("10%")),
            ("101%", Err("10%")),
            ("NaN%", Err("10%")),
        ] {
            let read = Ratio::parse(text).map(|ratio| ratio.0).map_err(|e| e.suggestion);
            assert_eq!(read, expected.map_err(str::to_owned), "{text:?}");
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        for text in ["250ms", "5s", "90s", "5m", "24h", "0s", "1500ms"] {
            assert_eq!(Time::parse(text).unwrap().to_string(), text);
        }
        for text in ["64MiB", "1GiB", "1025", "0", "512KiB"] {
            assert_eq!(Size::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Ratio::parse("10%").unwrap().to_string(), "10%");
    }
}
