//! A walk over the parsed file beside its schema, so that every mistake is found in one run: serde alone stops at the
//! first. What is wrong is taken out, and what remains always reads into the types of `file`.

use serde_json::Value as Json;
use serde_yaml::{Mapping, Value};

use super::problem::{Findings, KeyPath, nearest};
use super::units;

/// Checks `value` against the schema and takes out what is wrong; variables become the numbers that are wanted.
pub(super) fn check(value: Value, schema: &Json, findings: &mut Findings) -> Value {
    let mut walker = Walker { root: schema, findings };
    walker.node(value, schema, &KeyPath::root()).unwrap_or(Value::Mapping(Mapping::new()))
}

struct Walker<'a> {
    root: &'a Json,
    findings: &'a mut Findings,
}

/// The kinds of YAML values that matter here, with their names for people.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Sequence(_) => "array",
        Value::Mapping(_) => "object",
        Value::Tagged(_) => "tagged",
    }
}

fn spoken(kind: &str) -> &str {
    match kind {
        "boolean" => "true or false",
        "number" => "a number",
        "integer" => "a whole number",
        "string" => "text",
        "array" => "a list",
        "object" => "a mapping of keys",
        other => other,
    }
}

impl<'a> Walker<'a> {
    /// What remains of a value: nothing where it is null, which is as good as not written.
    fn node(&mut self, value: Value, schema: &'a Json, at: &KeyPath) -> Option<Value> {
        if value.is_null() {
            return None;
        }
        let schema = self.choose(schema, &value);
        let kinds = kinds(schema);
        let value = match self.settle(value, &kinds, at) {
            Some(value) if kinds.contains(&kind(&value)) => value,
            Some(value) if kinds.contains(&"number") && kind(&value) == "integer" => value,
            Some(value) => {
                self.wrong_kind(&value, schema, &kinds, at);
                return None;
            }
            None => return None,
        };
        match value {
            Value::Mapping(members) => Some(self.mapping(members, schema, at)),
            Value::Sequence(items) => Some(self.sequence(items, schema, at)),
            scalar => self.scalar(scalar, schema, at),
        }
    }

    /// Follows a reference, and of alternatives takes the one of the value's kind.
    fn choose(&self, schema: &'a Json, value: &Value) -> &'a Json {
        let schema = self.follow(schema);
        let Some(branches) = schema.get("anyOf").and_then(Json::as_array) else {
            return schema;
        };
        let not_null = || branches.iter().map(|b| self.follow(b)).filter(|b| kinds(b) != ["null"]);
        let nested = |branch: &'a Json| {
            if branch.get("anyOf").is_some() { self.choose(branch, value) } else { branch }
        };
        not_null()
            .map(nested)
            .find(|branch| kinds(branch).contains(&kind(value)))
            .or_else(|| not_null().map(nested).next())
            .unwrap_or(schema)
    }

    fn follow(&self, schema: &'a Json) -> &'a Json {
        let target = schema.get("$ref").and_then(Json::as_str).and_then(|target| target.strip_prefix('#'));
        target.and_then(|target| self.root.pointer(target)).unwrap_or(schema)
    }

    /// An expanded text becomes the number or the truth value that is wanted; an empty one counts as not written.
    fn settle(&self, value: Value, kinds: &[&str], at: &KeyPath) -> Option<Value> {
        let Value::String(text) = &value else { return Some(value) };
        match self.findings.expansions.get(at) {
            Some(expansion) if expansion.empty => None,
            Some(_) if !kinds.contains(&"string") => Some(serde_yaml::from_str(text).unwrap_or(value)),
            _ => Some(value),
        }
    }

    fn mapping(&mut self, members: Mapping, schema: &'a Json, at: &KeyPath) -> Value {
        let mut kept = Mapping::new();
        let known = schema.get("properties").and_then(Json::as_object);
        // A mapping by names of the user's own.
        let others = schema.get("additionalProperties").filter(|others| others.is_object());
        let names = schema.get("propertyNames").map(words).unwrap_or_default();
        for (key, member) in members {
            let Some(name) = key.as_str() else {
                let shown = serde_yaml::to_string(&key).unwrap_or_default();
                self.findings.add_value(at, shown.trim(), "a key is text", "a key such as `name`");
                continue;
            };
            if !names.is_empty() && !names.contains(&name) {
                let meant =
                    nearest(name, names.iter().copied()).map_or_else(|| names.join(", "), str::to_owned);
                self.findings.add(&at.key(name), format!("one of: {}", names.join(", ")), meant);
                continue;
            }
            match known.and_then(|known| known.get(name)).or(others) {
                Some(schema) => {
                    if let Some(member) = self.node(member, schema, &at.key(name)) {
                        kept.insert(key, member);
                    }
                }
                None => self.unknown_key(name, schema, at),
            }
        }
        Value::Mapping(kept)
    }

    fn unknown_key(&mut self, name: &str, schema: &'a Json, at: &KeyPath) {
        let keys: Vec<&str> = properties(schema).collect();
        let mut places = Vec::new();
        self.places(self.root, "", name, &mut places);
        let suggestion = if let Some(key) = nearest(name, keys.iter().copied()) {
            key.to_owned()
        } else if places.is_empty() {
            format!("one of: {}", keys.join(", "))
        } else {
            format!("`{name}` is a key of {}", places.join(", "))
        };
        self.findings.add(&at.key(name), "there is no such key here", suggestion);
    }

    /// Where a key of this name is known.
    fn places(&self, schema: &'a Json, path: &str, name: &str, found: &mut Vec<String>) {
        let sample = Value::Mapping(Mapping::new());
        for (key, below) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
            if key == name {
                found.push(if path.is_empty() { "the file itself".to_owned() } else { format!("`{path}`") });
            }
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let below = self.choose(below, &sample);
            match below.get("items") {
                Some(items) => self.places(self.choose(items, &sample), &format!("{path}[]"), name, found),
                None => self.places(below, &path, name, found),
            }
        }
    }

    fn sequence(&mut self, items: Vec<Value>, schema: &'a Json, at: &KeyPath) -> Value {
        let Some(schema) = schema.get("items") else { return Value::Sequence(items) };
        let mut kept = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let at = at.item(index);
            // What is wrong leaves an empty item behind, so that the others keep their places.
            let sample = Value::Mapping(Mapping::new());
            let of_mappings = kinds(self.choose(schema, &sample)).contains(&"object");
            let blank = if of_mappings { sample } else { Value::String(String::new()) };
            if item.is_null() && !self.findings.touches(&at) {
                self.findings.add(&at, "an item of a list has a value", "write one, or remove the line");
            }
            kept.push(self.node(item, schema, &at).unwrap_or(blank));
        }
        Value::Sequence(kept)
    }

    fn scalar(&mut self, value: Value, schema: &Json, at: &KeyPath) -> Option<Value> {
        let text = match &value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return Some(value),
        };
        let words = words(schema);
        let fault = if let Some(unit) = schema.get("x-unit").and_then(Json::as_str) {
            units::parse_as(unit, &text).err().map(|error| (error.rule.to_owned(), error.suggestion))
        } else if !words.is_empty() && !words.contains(&text.as_str()) {
            let suggestion =
                nearest(&text, words.iter().copied()).unwrap_or_else(|| words.first().unwrap_or(&""));
            Some((format!("one of: {}", words.join(", ")), suggestion.to_owned()))
        } else {
            value.as_f64().and_then(|number| out_of_range(number, schema))
        };
        match fault {
            None => Some(value),
            Some((rule, suggestion)) => {
                let shown = self.shown(&value, schema, at);
                self.findings.add_value(at, shown, rule, suggestion);
                None
            }
        }
    }

    fn wrong_kind(&mut self, value: &Value, schema: &Json, kinds: &[&str], at: &KeyPath) {
        let unit = schema.get("x-unit").and_then(Json::as_str);
        let (rule, suggestion) = if let Some(error) = unit.and_then(|unit| units::parse_as(unit, "?").err()) {
            (error.rule.to_owned(), error.suggestion)
        } else {
            let wanted = kinds.iter().copied().find(|kind| *kind != "null").unwrap_or("string");
            (format!("{} is wanted here", spoken(wanted)), example(wanted, value, schema))
        };
        let shown = self.shown(value, schema, at);
        self.findings.add_value(at, shown, rule, suggestion);
    }

    /// A value for people: as written where variables were expanded, nothing of a secret.
    fn shown(&self, value: &Value, schema: &Json, at: &KeyPath) -> String {
        if let Some(expansion) = self.findings.expansions.get(at) {
            return expansion.written.clone();
        }
        if schema.get("x-secret").is_some() {
            return "***".to_owned();
        }
        match value {
            Value::String(text) => text.clone(),
            Value::Bool(truth) => truth.to_string(),
            Value::Number(number) => number.to_string(),
            other => spoken(kind(other)).to_owned(),
        }
    }
}

/// What the type of a schema allows.
fn kinds(schema: &Json) -> Vec<&str> {
    match schema.get("type") {
        Some(Json::String(kind)) => vec![kind],
        Some(Json::Array(kinds)) => kinds.iter().filter_map(Json::as_str).collect(),
        _ if !words(schema).is_empty() => vec!["string"],
        _ => Vec::new(),
    }
}

/// The words that an enumeration allows.
fn words(schema: &Json) -> Vec<&str> {
    let of = |key: &str| schema.get(key).and_then(Json::as_array).into_iter().flatten();
    let alternatives = of("oneOf").chain(of("anyOf")).filter_map(|branch| branch.get("const"));
    of("enum").chain(alternatives).chain(schema.get("const")).filter_map(Json::as_str).collect()
}

fn properties(schema: &Json) -> impl Iterator<Item = &str> {
    schema.get("properties").and_then(Json::as_object).into_iter().flatten().map(|(key, _)| key.as_str())
}

fn out_of_range(number: f64, schema: &Json) -> Option<(String, String)> {
    let bound = |key: &str| schema.get(key).and_then(Json::as_f64);
    let (low, high) = (bound("minimum").unwrap_or(f64::MIN), bound("maximum").unwrap_or(f64::from(u32::MAX)));
    // Written so that a NaN is out of range.
    if number >= low && number <= high {
        return None;
    }
    let nearest = if number > high { high } else { low };
    let rule = if bound("maximum").is_some() {
        if low >= high { format!("it is {low}") } else { format!("at least {low} and at most {high}") }
    } else {
        format!("at least {low}")
    };
    Some((rule, nearest.to_string()))
}

/// What such a value looks like.
fn example(wanted: &str, value: &Value, schema: &Json) -> String {
    match (wanted, value) {
        ("string", Value::Number(port)) if schema.to_string().contains("host:port") => {
            format!("127.0.0.1:{port}")
        }
        ("string", Value::Number(number)) if words(schema).is_empty() => format!("\"{number}\", in quotes"),
        ("string", Value::Bool(truth)) if words(schema).is_empty() => format!("\"{truth}\", in quotes"),
        ("string", _) => {
            words(schema).first().map_or_else(|| "one value".to_owned(), |word| (*word).to_owned())
        }
        ("boolean", _) => "true or false".to_owned(),
        ("integer" | "number", Value::String(text)) if text.parse::<f64>().is_ok() => {
            format!("{text}, without quotes")
        }
        ("integer" | "number", _) => "a number such as 4".to_owned(),
        ("array", _) => "a list: [first, second]".to_owned(),
        _ => {
            let keys: Vec<&str> = properties(schema).take(3).collect();
            format!("keys such as {}", keys.join(", "))
        }
    }
}
