//! Compute Engine v1 over the [`World`]: the methods that the operator uses, nothing else.

mod errors;
mod filter;
mod handlers;
mod render;

use std::collections::BTreeMap;

use self::errors::Trouble;
use super::{
    Recorder,
    wire::{Reply, Request},
};
use crate::world::{Ask, Caller, Place, World};

/// One method of the API, in the words of Google's discovery document, against which the tests check this table.
#[derive(Clone, Copy, Debug)]
pub struct ApiMethod {
    /// For example `compute.addresses.list`; a world's log has it without `compute.`.
    pub id: &'static str,
    pub http: &'static str,
    /// After `/compute/v1/`.
    pub path: &'static str,
    /// Query parameters that the façade reads. Any other is refused, so that nothing is ignored unseen.
    pub reads: &'static [&'static str],
    /// Fields of the request's body that the façade reads. Any other is refused too.
    pub body: &'static [&'static str],
    /// Permissions that it needs.
    pub permissions: &'static [&'static str],
}

/// Every method that is served.
pub const METHODS: &[ApiMethod] = &[
    ApiMethod {
        id: "compute.addresses.list",
        http: "GET",
        path: "projects/{project}/regions/{region}/addresses",
        reads: &["filter", "maxResults", "pageToken"],
        body: &[],
        permissions: &["compute.addresses.list"],
    },
    ApiMethod {
        id: "compute.addresses.get",
        http: "GET",
        path: "projects/{project}/regions/{region}/addresses/{address}",
        reads: &[],
        body: &[],
        permissions: &["compute.addresses.get"],
    },
    ApiMethod {
        id: "compute.addresses.aggregatedList",
        http: "GET",
        path: "projects/{project}/aggregated/addresses",
        reads: &["filter", "maxResults", "pageToken"],
        body: &[],
        permissions: &["compute.addresses.list"],
    },
    ApiMethod {
        id: "compute.addresses.testIamPermissions",
        http: "POST",
        path: "projects/{project}/regions/{region}/addresses/{resource}/testIamPermissions",
        reads: &[],
        body: &["permissions"],
        permissions: &[],
    },
    ApiMethod {
        id: "compute.instances.get",
        http: "GET",
        path: "projects/{project}/zones/{zone}/instances/{instance}",
        reads: &[],
        body: &[],
        permissions: &["compute.instances.get"],
    },
    ApiMethod {
        id: "compute.instances.addAccessConfig",
        http: "POST",
        path: "projects/{project}/zones/{zone}/instances/{instance}/addAccessConfig",
        reads: &["networkInterface", "requestId"],
        body: &["kind", "name", "natIP", "networkTier", "publicPtrDomainName", "setPublicPtr", "type"],
        permissions: &["compute.instances.addAccessConfig", "compute.subnetworks.useExternalIp"],
    },
    ApiMethod {
        id: "compute.instances.deleteAccessConfig",
        http: "POST",
        path: "projects/{project}/zones/{zone}/instances/{instance}/deleteAccessConfig",
        reads: &["accessConfig", "networkInterface", "requestId"],
        body: &[],
        permissions: &["compute.instances.deleteAccessConfig"],
    },
    ApiMethod {
        id: "compute.instances.testIamPermissions",
        http: "POST",
        path: "projects/{project}/zones/{zone}/instances/{resource}/testIamPermissions",
        reads: &[],
        body: &["permissions"],
        permissions: &[],
    },
    ApiMethod {
        id: "compute.zoneOperations.get",
        http: "GET",
        path: "projects/{project}/zones/{zone}/operations/{operation}",
        reads: &[],
        body: &[],
        permissions: &["compute.zoneOperations.get"],
    },
    ApiMethod {
        id: "compute.zoneOperations.wait",
        http: "POST",
        path: "projects/{project}/zones/{zone}/operations/{operation}/wait",
        reads: &[],
        body: &[],
        permissions: &["compute.zoneOperations.get"],
    },
];

/// Query parameters of every Google API that change nothing here.
const COMMON: &[&str] = &["$alt", "$apiVersion", "alt", "prettyPrint"];

impl ApiMethod {
    /// The path's parameters, if the path is this method's.
    fn fits(&self, http: &str, path: &[String]) -> Option<BTreeMap<&'static str, String>> {
        let template: Vec<&'static str> = self.path.split('/').collect();
        if self.http != http || template.len() != path.len() {
            return None;
        }
        let mut found = BTreeMap::new();
        for (part, given) in template.into_iter().zip(path) {
            match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                Some(name) if !given.is_empty() => {
                    found.insert(name, given.clone());
                }
                _ if part == given => {}
                _ => return None,
            }
        }
        Some(found)
    }
}

/// A request that was routed.
struct Routed {
    method: &'static ApiMethod,
    path: BTreeMap<&'static str, String>,
    request: Request,
}

impl Routed {
    /// A parameter of the path; routing has made sure that those of the template are there.
    fn part(&self, name: &str) -> String {
        self.path.get(name).cloned().unwrap_or_default()
    }

    fn query(&self, name: &str) -> Option<&String> {
        self.request.query.get(name)
    }

    fn required(&self, name: &str) -> Result<String, Trouble> {
        self.query(name)
            .filter(|value| !value.is_empty())
            .cloned()
            .ok_or_else(|| Trouble::new(400, "required", &format!("Required field '{name}' not specified")))
    }

    /// The call in the world's words.
    fn ask(&self) -> Ask {
        let place = match (self.path.get("region"), self.path.get("zone")) {
            (Some(region), _) => Place::Region(region.clone()),
            (None, Some(zone)) => Place::Zone(zone.clone()),
            (None, None) => Place::Account,
        };
        let resource: Vec<&str> = self.request.path.iter().skip(2).map(String::as_str).collect();
        let verbs = ["/addAccessConfig", "/deleteAccessConfig", "/testIamPermissions", "/wait"];
        let mut target = resource.join("/");
        if let Some(verb) = verbs.iter().find(|verb| target.ends_with(*verb)) {
            target.truncate(target.len().saturating_sub(verb.len()));
        }
        Ask {
            method: self.method.id.trim_start_matches("compute.").to_owned(),
            account: self.part("project"),
            place,
            target,
            filter: self.query("filter").cloned().unwrap_or_default(),
            caller: Caller::Bearer(self.request.bearer()),
            permissions: self.method.permissions.iter().map(|permission| (*permission).to_owned()).collect(),
        }
    }
}

pub(super) async fn answer(request: Request, world: World, recorder: Recorder) -> Reply {
    let path = request.path.get(2..).unwrap_or_default();
    if request.path.get(1).map(String::as_str) != Some("v1") {
        return Trouble::no_such_method().reply();
    }
    let found = METHODS.iter().find_map(|method| Some((method, method.fits(request.method.as_str(), path)?)));
    let Some((method, path)) = found else {
        return Trouble::no_such_method().reply();
    };
    let unread = |name: &&String| !method.reads.contains(&name.as_str()) && !COMMON.contains(&name.as_str());
    if let Some(name) = request.query.keys().find(unread) {
        return Trouble::new(400, "invalid", &format!("the simulator's {} does not know '{name}'", method.id)).reply();
    }
    match handlers::answer(&Routed { method, path, request }, &world).await {
        Ok(body) => {
            recorder.note(method.id, &body);
            Reply::Json(200, body)
        }
        Err(errors::Failure::Trouble(trouble)) => trouble.reply(),
        Err(errors::Failure::Silence) => Reply::Silence,
        Err(errors::Failure::Closed) => Reply::Closed,
    }
}
