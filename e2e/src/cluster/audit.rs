//! What the API server says was asked of it, and by whom.

use std::{fs, path::Path, time::Duration};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// The policy: who asked what, never the bodies. A watch is told when it starts, for some never end.
pub(super) const POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
";

/// One request, as the API server saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditEvent {
    /// `ResponseComplete`, or `ResponseStarted` for a watch that goes on.
    pub stage: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    /// `system:serviceaccount:NAMESPACE:NAME` for a service account.
    pub user: String,
    /// The pod that the token was bound to, if it was.
    pub pod: String,
    /// The API group; empty for the core group.
    pub group: String,
    /// The plural; empty for a path that is no resource (`/readyz`).
    pub resource: String,
    /// `status`, `eviction`, `token`, …; empty if none.
    pub subresource: String,
    /// The object's name; empty for lists.
    pub name: String,
    /// The object's namespace; empty for what is cluster-scoped.
    pub namespace: String,
    /// The HTTP status.
    pub code: u16,
    /// The whole path and query.
    pub uri: String,
    /// When the request arrived, in RFC 3339.
    pub time: String,
    /// From then until this stage was reached, where the line tells both.
    pub took: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    stage: String,
    verb: String,
    #[serde(default, rename = "requestURI")]
    request_uri: String,
    #[serde(default)]
    user: Value,
    #[serde(default)]
    object_ref: Value,
    #[serde(default)]
    response_status: Value,
    #[serde(default)]
    request_received_timestamp: String,
    #[serde(default)]
    stage_timestamp: String,
}

/// Reads the whole log. A line that is just being written is left for the next time.
pub(super) fn read(log: &Path) -> anyhow::Result<Vec<AuditEvent>> {
    let text = fs::read_to_string(log)?;
    Ok(text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()).map(AuditEvent::from).collect())
}

impl From<Line> for AuditEvent {
    fn from(line: Line) -> Self {
        let of = |object: &Value, key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let pod = line
            .user
            .pointer("/extra/authentication.kubernetes.io~1pod-name/0")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let moment = |text: &str| text.parse::<Timestamp>().ok();
        let took = moment(&line.request_received_timestamp)
            .zip(moment(&line.stage_timestamp))
            .and_then(|(from, to)| Duration::try_from(to.duration_since(from)).ok());
        Self {
            user: of(&line.user, "username"),
            pod,
            group: of(&line.object_ref, "apiGroup"),
            resource: of(&line.object_ref, "resource"),
            subresource: of(&line.object_ref, "subresource"),
            name: of(&line.object_ref, "name"),
            namespace: of(&line.object_ref, "namespace"),
            code: line
                .response_status
                .get("code")
                .and_then(Value::as_u64)
                .and_then(|code| u16::try_from(code).ok())
                .unwrap_or_default(),
            stage: line.stage,
            verb: line.verb,
            uri: line.request_uri,
            time: line.request_received_timestamp,
            took,
        }
    }
}
