//! Answers as EC2 and STS write them. Built as JSON with the elements' names; a list is an element of `item`s.

use serde_json::Value;
use uuid::Uuid;

/// An answer, and the id of the request that it answers: in its text, and in a header beside it.
#[derive(Debug)]
pub(in crate::simulator) struct Document {
    pub id: Uuid,
    pub text: String,
}

impl Document {
    fn new(text: impl FnOnce(Uuid) -> String) -> Self {
        let id = Uuid::new_v4();
        Self { id, text: text(id) }
    }
}

/// An answer of EC2.
pub(super) fn ec2(action: &str, body: &Value) -> Document {
    let inner = inside(body, "item");
    Document::new(|id| {
        format!(
            "{HEAD}<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>{id}</requestId>{inner}</{action}Response>"
        )
    })
}

/// An answer of STS.
pub(super) fn sts(action: &str, body: &Value) -> Document {
    let inner = inside(body, "member");
    Document::new(|id| {
        format!(
            "{HEAD}<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result>{inner}</{action}Result><ResponseMetadata><RequestId>{id}</RequestId></ResponseMetadata></{action}Response>"
        )
    })
}

/// An error of EC2.
pub(super) fn ec2_error(code: &str, message: &str) -> Document {
    let (code, message) = (escaped(code), escaped(message));
    Document::new(|id| {
        format!(
            "{HEAD}<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors><RequestID>{id}</RequestID></Response>"
        )
    })
}

/// An error of STS.
pub(super) fn sts_error(code: &str, message: &str) -> Document {
    let (code, message) = (escaped(code), escaped(message));
    Document::new(|id| {
        format!(
            "{HEAD}<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error><RequestId>{id}</RequestId></ErrorResponse>"
        )
    })
}

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

fn inside(value: &Value, item: &str) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => escaped(text),
        Value::Array(items) => items.iter().map(|inner| element(item, inner, item)).collect(),
        Value::Object(fields) => fields.iter().map(|(name, inner)| element(name, inner, item)).collect(),
    }
}

fn element(name: &str, value: &Value, item: &str) -> String {
    format!("<{name}>{}</{name}>", inside(value, item))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
