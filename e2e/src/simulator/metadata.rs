//! The metadata server of a Google Cloud machine, as far as credentials need it.
//!
//! `GCE_METADATA_HOST` leads the default credentials of any Google client here; its tokens are the ones that the
//! Compute Engine façade asks for.

use serde_json::json;
use warp::http::Method;

use super::wire::{Reply, Request};
use crate::world::World;

pub(super) fn answer(request: &Request, world: &World) -> Reply {
    // Without the header a real server refuses: it proves that no browser was tricked into asking.
    let flavored = request.headers.get("metadata-flavor").is_some_and(|value| value == "Google");
    if !flavored {
        return Reply::Text(403, "Missing Metadata-Flavor:Google header.\n".to_owned());
    }
    if request.method != Method::GET {
        return Reply::Text(405, "Only GET here.\n".to_owned());
    }
    match request.path.join("/").as_str() {
        "computeMetadata/v1/instance/service-accounts/default/token" => match world.issue_token() {
            Some(token) => Reply::Json(200, json!({"access_token": token, "expires_in": 3599, "token_type": "Bearer"})),
            None => Reply::Text(404, "The service account was not found.\n".to_owned()),
        },
        "computeMetadata/v1/instance/service-accounts/default/email" => {
            Reply::Text(200, "operator@simulated.iam.gserviceaccount.com".to_owned())
        }
        "computeMetadata/v1/universe/universe-domain" => Reply::Text(200, "googleapis.com".to_owned()),
        other => Reply::Text(404, format!("The simulator's metadata server has no {other}.\n")),
    }
}
