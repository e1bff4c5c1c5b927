//! What a row says of what it got.

use serde_json::Value;

/// Longer than this nothing is shown of what came.
const SHOWN_CHARS: usize = 300;

/// Why a row did not pass.
#[derive(Debug)]
pub(crate) enum Failure {
    Broken { expected: String, got: String },
    NotOffered(String),
}

pub(crate) type Check<T = ()> = Result<T, Failure>;

/// That the contract is broken here.
pub(crate) fn broken(expected: impl Into<String>, got: impl std::fmt::Display) -> Failure {
    Failure::Broken { expected: expected.into(), got: shown(&got.to_string()) }
}

/// That the server need not, and does not, have this.
pub(crate) fn not_offered<T>(why: &str) -> Check<T> {
    Err(Failure::NotOffered(why.to_owned()))
}

/// Holds if `condition` does; `got` is what came instead of `expected`.
pub(crate) fn expect(condition: bool, expected: impl Into<String>, got: impl std::fmt::Display) -> Check {
    if condition { Ok(()) } else { Err(broken(expected, got)) }
}

/// Holds if `got` has every field of `expected`, whatever else it has: a client ignores what it does not know.
pub(crate) fn like(got: &Value, expected: &Value) -> Check {
    expect(is_like(got, expected), format!("{expected}, perhaps with more fields"), got)
}

pub(crate) fn is_like(got: &Value, expected: &Value) -> bool {
    match (got, expected) {
        (Value::Object(got), Value::Object(expected)) => {
            expected.iter().all(|(field, value)| got.get(field).is_some_and(|got| is_like(got, value)))
        }
        (Value::Array(got), Value::Array(expected)) => {
            got.len() == expected.len() && got.iter().zip(expected).all(|(got, value)| is_like(got, value))
        }
        _ => got == expected,
    }
}

/// The integer in a field.
pub(crate) fn int(value: &Value, field: &str) -> Check<i64> {
    value[field].as_i64().ok_or_else(|| broken(format!("an integer {field}"), value))
}

/// The string in a field.
pub(crate) fn text<'a>(value: &'a Value, field: &str) -> Check<&'a str> {
    value[field].as_str().ok_or_else(|| broken(format!("a string {field}"), value))
}

/// The list in a field.
pub(crate) fn list<'a>(value: &'a Value, field: &str) -> Check<&'a [Value]> {
    value[field].as_array().map(Vec::as_slice).ok_or_else(|| broken(format!("a list {field}"), value))
}

/// The ids in a list of objects.
pub(crate) fn ids(values: &[Value]) -> Vec<i64> {
    values.iter().filter_map(|value| value["id"].as_i64()).collect()
}

/// The frames of type `kind`.
pub(crate) fn of<'a>(frames: &'a [Value], kind: &str) -> Vec<&'a Value> {
    frames.iter().filter(|frame| frame["type"] == kind).collect()
}

/// The one frame that is like `expected`.
pub(crate) fn one<'a>(frames: &'a [Value], expected: &Value) -> Check<&'a Value> {
    let mut found = frames.iter().filter(|frame| is_like(frame, expected));
    match (found.next(), found.next()) {
        (Some(frame), None) => Ok(frame),
        (None, _) => Err(broken(format!("one frame like {expected}"), format!("none among {}", Value::from(frames)))),
        (Some(first), Some(second)) => {
            Err(broken(format!("one frame like {expected}"), format!("{first} and {second}")))
        }
    }
}

/// Holds if no frame is like `unwanted`.
pub(crate) fn none(frames: &[Value], unwanted: &Value) -> Check {
    let found = frames.iter().find(|frame| is_like(frame, unwanted));
    found.map_or(Ok(()), |frame| Err(broken(format!("no frame like {unwanted}"), frame)))
}

/// The beginning of a text, for people.
pub(crate) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((at, _)) => format!("{}… ({} bytes)", &text[..at], text.len()),
        None => text.to_owned(),
    }
}
