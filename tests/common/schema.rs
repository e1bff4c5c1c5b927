//! What the documents for other programs, `docs/openapi.json` and `docs/asyncapi.json`, say of an answer or a frame.
//!
//! Every answer and frame that the tests' clients read is checked, so that neither a server nor a document changes
//! alone. Clients ignore fields that they do not know; here a field that the document does not name is a fault.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::Value;

use super::Response;

pub(crate) static OPENAPI: LazyLock<Value> = LazyLock::new(|| document(include_str!("../../docs/openapi.json")));
pub(crate) static ASYNCAPI: LazyLock<Value> = LazyLock::new(|| document(include_str!("../../docs/asyncapi.json")));

fn document(text: &str) -> Value {
    serde_json::from_str(text).expect("the document is JSON")
}

thread_local! {
    /// What this test has seen: `GET /rooms 200`, `server.message`.
    static SEEN: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

pub(crate) fn seen() -> BTreeSet<String> {
    SEEN.with_borrow(Clone::clone)
}

fn see(what: String) {
    SEEN.with_borrow_mut(|seen| seen.insert(what));
}

/// Checks a frame of the server.
pub(crate) fn check_frame(frame: &Value) {
    let name = format!("server.{}", frame["type"].as_str().unwrap_or_default());
    let message = &ASYNCAPI["components"]["messages"][&name];
    assert!(message.is_object(), "docs/asyncapi.json has no {name}: {frame}");
    assert_none(fault(&message["payload"], frame, true), &name, frame);
    see(name);
}

/// Checks what is the same for every route: the body of an error.
pub(crate) fn check_error(response: &Response) {
    let is_json = response.header("Content-Type") == Some("application/json");
    if response.status >= 400 && is_json && !response.body.is_empty() {
        let body = response.json();
        assert_none(fault(&OPENAPI["components"]["schemas"]["Error"], &body, true), "an error", &body);
    }
}

/// Checks the answer to a request, and that what was accepted is what the document asks for.
pub(crate) fn check_answer(method: &str, target: &str, request: &[u8], response: &Response) {
    let path = target.split('?').next().unwrap_or_default();
    let paths = OPENAPI["paths"].as_object().expect("the document has paths");
    let Some((pattern, item)) = paths.iter().find(|(pattern, _)| matches(pattern, path)) else { return };
    if response.status >= 400 || matches!(method, "HEAD" | "OPTIONS") {
        return;
    }
    let name = format!("{method} {pattern} {}", response.status);
    let operation = &item[method.to_ascii_lowercase()];
    let answer = &operation["responses"][response.status.to_string()];
    assert!(answer.is_object(), "docs/openapi.json has no {name}");
    match answer["content"].as_object().and_then(|content| content.iter().next()) {
        None => assert!(response.body.is_empty(), "docs/openapi.json has no body for {name}: {response:?}"),
        Some((kind, content)) => {
            let actual = response.header("Content-Type").unwrap_or_default().split(';').next().unwrap_or_default();
            assert!(
                actual == kind || kind.strip_suffix('*').is_some_and(|start| actual.starts_with(start)),
                "{actual}"
            );
            // A document of one value is one line.
            let lines = (kind.starts_with("application/json")).then(|| response.text().lines());
            for value in lines.into_iter().flatten().map(document) {
                assert_none(fault(&content["schema"], &value, true), &name, &value);
            }
        }
    }
    let asked = &operation["requestBody"]["content"]["application/json"]["schema"];
    if let (true, Ok(body)) = (asked.is_object(), serde_json::from_slice(request)) {
        assert_none(fault(asked, &body, false), &format!("what {name} accepts"), &body);
    }
    see(name);
}

fn assert_none(fault: Option<String>, name: &str, value: &Value) {
    assert!(fault.is_none(), "{name} is not as documented: {} in {value}", fault.unwrap_or_default());
}

fn matches(pattern: &str, path: &str) -> bool {
    let parts = || pattern.split('/').zip(path.split('/'));
    pattern.split('/').count() == path.split('/').count()
        && parts().all(|(expected, part)| expected == part || (expected.starts_with('{') && !part.is_empty()))
}

/// What `value` has that `schema` does not allow, if anything. `is_closed`: nor fields that it does not name.
pub(crate) fn fault(schema: &Value, value: &Value, is_closed: bool) -> Option<String> {
    if let (true, Some(fields)) = (is_closed, value.as_object()) {
        let known = names(schema);
        if let Some(field) = fields.keys().find(|field| !known.contains(&field.as_str())) {
            return Some(format!("the field {field}, which it does not name,"));
        }
    }
    fault_of_part(schema, value, is_closed)
}

/// The fields that a schema names, also by way of others.
fn names(schema: &Value) -> Vec<&str> {
    let schema = resolved(schema);
    let own = schema["properties"].as_object().into_iter().flat_map(|fields| fields.keys().map(String::as_str));
    let parts = ["allOf", "oneOf"].into_iter().filter_map(|list| schema[list].as_array()).flatten();
    own.chain(parts.flat_map(names)).collect()
}

fn resolved(schema: &Value) -> &Value {
    let Some(reference) = schema.get("$ref").and_then(Value::as_str) else { return schema };
    let (_, pointer) = reference.split_once('#').expect("a place in docs/openapi.json");
    OPENAPI.pointer(pointer).unwrap_or_else(|| panic!("docs/openapi.json has no {pointer}"))
}

/// The keywords of JSON Schema that the documents use; another one is a panic, so that none goes unchecked.
fn fault_of_part(schema: &Value, value: &Value, is_closed: bool) -> Option<String> {
    for (keyword, expected) in resolved(schema).as_object().expect("a schema is an object") {
        let parts = || expected.as_array().expect("a list of schemas").iter();
        let number = || expected.as_i64().expect("a whole number");
        let length = || i64::try_from(value.as_str().map_or(0, |text| text.chars().count())).expect("it is short");
        let is_good = match keyword.as_str() {
            "description" | "default" => true,
            "type" => match expected {
                Value::Array(kinds) => kinds.iter().any(|kind| is(kind, value)),
                kind => is(kind, value),
            },
            "enum" => parts().any(|one| one == value),
            "const" => expected == value,
            "minimum" => value.as_i64().is_none_or(|value| value >= number()),
            "maximum" => value.as_i64().is_none_or(|value| value <= number()),
            "minLength" => !value.is_string() || length() >= number(),
            "maxLength" => length() <= number(),
            "maxItems" => {
                value.as_array().is_none_or(|items| i64::try_from(items.len()).is_ok_and(|len| len <= number()))
            }
            "required" => parts().all(|name| value.get(name.as_str().expect("the name of a field")).is_some()),
            "properties" => {
                let fields = expected.as_object().expect("fields").iter();
                let inner =
                    fields.filter_map(|(name, schema)| Some((name, fault(schema, value.get(name)?, is_closed)?)));
                match inner.into_iter().next() {
                    Some((name, inner)) => return Some(format!("{name}: {inner}")),
                    None => true,
                }
            }
            "items" => match value.as_array().into_iter().flatten().find_map(|item| fault(expected, item, is_closed)) {
                Some(inner) => return Some(inner),
                None => true,
            },
            "allOf" => match parts().find_map(|part| fault_of_part(part, value, is_closed)) {
                Some(inner) => return Some(inner),
                None => true,
            },
            "oneOf" => parts().filter(|part| fault(part, value, is_closed).is_none()).count() == 1,
            "$ref" => unreachable!("it was resolved"),
            other => panic!("nothing checks the keyword {other}"),
        };
        if !is_good {
            return Some(format!("not {keyword} {expected}"));
        }
    }
    None
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("null") => value.is_null(),
        _ => panic!("no type of JSON: {kind}"),
    }
}
