//! Who calls, and the two ways in which a pod on EKS gets credentials. A key id is a token of the world.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use warp::http::{HeaderMap, Method, header};

use super::{query::Query, xml};
use crate::{
    simulator::{
        Recorder,
        wire::{Reply, Request},
    },
    world::World,
};

const ASSUME: &str = "AssumeRoleWithWebIdentity";

/// Key id and region of a signed request. The signature itself is not checked: who knows the key id gets in.
pub(super) fn signature(headers: &HeaderMap) -> Option<(String, String)> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("AWS4-HMAC-SHA256 ")?;
    let credential = text.split(',').find_map(|part| part.trim().strip_prefix("Credential="))?;
    let mut parts = credential.split('/');
    let (key, _day, region) = (parts.next()?, parts.next()?, parts.next()?);
    Some((key.to_owned(), region.to_owned()))
}

/// Security Token Service: a ServiceAccount's token for a role's credentials (IRSA).
pub(super) fn sts(action: &str, query: &Query, world: &World, recorder: &Recorder) -> Reply {
    let refuse = |code: &str, message: &str| Reply::Xml(400, xml::sts_error(code, message));
    if action != ASSUME {
        return refuse("InvalidAction", "The simulator serves AssumeRoleWithWebIdentity alone");
    }
    let (Some(role), Some(session), Some(_)) =
        (query.text("RoleArn"), query.text("RoleSessionName"), query.text("WebIdentityToken"))
    else {
        return refuse("ValidationError", "RoleArn, RoleSessionName and WebIdentityToken are needed");
    };
    let Some(key) = world.issue_token() else {
        return refuse("InvalidIdentityToken", "No OpenIDConnect provider found in your account for this token");
    };
    let name = role.rsplit('/').next().unwrap_or_default();
    let body = json!({
        "Credentials": {
            "AccessKeyId": key,
            "SecretAccessKey": "simulated-secret",
            "SessionToken": "simulated-session",
            "Expiration": expiration(),
        },
        "AssumedRoleUser": {
            "AssumedRoleId": format!("AROASIMULATED:{session}"),
            "Arn": format!("arn:aws:sts::123456789012:assumed-role/{name}/{session}"),
        },
    });
    recorder.note(ASSUME, &body);
    Reply::Xml(200, xml::sts(ASSUME, &body))
}

/// The agent that EKS runs on each node: a pod's token for its role's credentials.
pub(in crate::simulator) fn pod_identity(request: &Request, world: &World) -> Reply {
    let refuse = |status, message: &str| Reply::Json(status, json!({"code": "AccessDenied", "message": message}));
    if request.method != Method::GET || request.path.join("/") != "pod-identity/v1/credentials" {
        return refuse(404, "no such thing here");
    }
    if request.headers.get(header::AUTHORIZATION).is_none_or(header::HeaderValue::is_empty) {
        return refuse(401, "the pod's token is missing");
    }
    match world.issue_token() {
        Some(key) => Reply::Json(
            200,
            json!({
                "AccessKeyId": key,
                "SecretAccessKey": "simulated-secret",
                "Token": "simulated-session",
                "AccountId": "123456789012",
                "Expiration": expiration(),
            }),
        ),
        None => refuse(403, "no association of this ServiceAccount with a role"),
    }
}

fn expiration() -> Value {
    let at = Timestamp::now().saturating_add(SignedDuration::from_hours(1)).unwrap_or(Timestamp::MAX);
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into()
}
