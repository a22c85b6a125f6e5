//! Where tokens come from: Microsoft Entra ID and the metadata service of a machine, as far as credentials need them.
//! Their tokens are the ones that Azure Resource Manager asks for.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use warp::http::Method;

use super::Desk;
use crate::{
    simulator::wire::{Reply, Request, decode},
    world::World,
};

const BY_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Whether a path is `/{tenant}/oauth2/v2.0/token`.
pub(in crate::simulator) fn is_authority(path: &[String]) -> bool {
    matches!(path, [_, oauth, version, token] if oauth == "oauth2" && version == "v2.0" && token == "token")
}

/// Client credentials, by a secret or by a federated token.
pub(in crate::simulator) fn answer_authority(request: &Request, world: &World, desk: &Desk) -> Reply {
    let form = form(&request.body);
    let said = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let refuse = |code: &str, why: &str| Reply::Json(401, json!({"error": code, "error_description": why}));
    if request.method != Method::POST || said("grant_type") != "client_credentials" {
        return Reply::Json(
            400,
            json!({"error": "unsupported_grant_type", "error_description": "AADSTS70003: not this"}),
        );
    }
    let audience = format!("http://{}/.default", host(request));
    if said("scope") != audience {
        let why = format!("AADSTS500011: The resource principal named {} was not found.", said("scope"));
        return Reply::Json(400, json!({"error": "invalid_resource", "error_description": why}));
    }
    if said("client_id").is_empty() {
        return refuse("unauthorized_client", "AADSTS700016: Application was not found in the directory.");
    }
    let assertion = said("client_assertion");
    if said("client_assertion_type") == BY_ASSERTION && !assertion.is_empty() {
        desk.open().assertions.push(assertion.to_owned());
    } else if said("client_secret").is_empty() {
        return refuse("invalid_client", "AADSTS7000216: 'client_assertion' or 'client_secret' is required.");
    }
    let seconds = desk.open().token_seconds;
    match world.issue_token() {
        Some(token) => {
            let answer = json!({
                "token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": token,
            });
            Reply::Json(200, answer)
        }
        None => refuse("invalid_client", "AADSTS700024: Client assertion is not within its valid time range."),
    }
}

/// The managed identities of the machine.
pub(in crate::simulator) fn answer_metadata(request: &Request, world: &World, desk: &Desk) -> Reply {
    let bad = |why: &str| Reply::Json(400, json!({"error": "invalid_request", "error_description": why}));
    if request.headers.get("metadata").is_none_or(|value| value != "true") {
        return bad("Required metadata header not specified");
    }
    let query = |name: &str| request.query.get(name).map(String::as_str);
    if request.path.join("/") != "metadata/identity/oauth2/token" || request.method != Method::GET {
        return Reply::Text(404, "no such thing here\n".to_owned());
    }
    if query("api-version") != Some("2018-02-01") {
        return bad("Required query variable 'api-version' is missing or not 2018-02-01");
    }
    if query("resource") != Some(&format!("http://{}", host(request))) {
        return bad("AADSTS500011: The resource principal was not found in the tenant.");
    }
    desk.open().identities.push(query("client_id").map(str::to_owned));
    let seconds = desk.open().token_seconds;
    match world.issue_token() {
        Some(token) => {
            // Every number is text here.
            let expires = jiff::Timestamp::now().as_second().saturating_add(seconds);
            let answer: Value = json!({
                "access_token": token, "expires_in": seconds.to_string(), "expires_on": expires.to_string(),
                "resource": query("resource"), "token_type": "Bearer",
            });
            Reply::Json(200, answer)
        }
        None => bad("Identity not found"),
    }
}

fn host(request: &Request) -> &str {
    request.headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default()
}

fn form(body: &[u8]) -> BTreeMap<String, String> {
    let body = String::from_utf8_lossy(body);
    let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decode(name), decode(&value.replace('+', " ")))).collect()
}
