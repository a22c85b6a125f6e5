//! An API server for unit tests: whatever a function answers.

use std::convert::Infallible;

use http::{Request, Response, StatusCode, request::Parts};
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use serde_json::{Value, json};

/// A client of a server that answers each request, whose body is JSON or empty (null), with a code and JSON.
pub fn client(answer: impl Fn(&Parts, Value) -> (u16, Value) + Clone + Send + 'static) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let answer = answer.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
            let (code, told) = answer(&parts, body);
            let mut response = Response::new(Body::from(told.to_string().into_bytes()));
            *response.status_mut() = StatusCode::from_u16(code).unwrap();
            Ok::<_, Infallible>(response)
        }
    });
    Client::new(service, "default")
}

/// The body of a refusal.
pub fn refused(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": reason})
}
