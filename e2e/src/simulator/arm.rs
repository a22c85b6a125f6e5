//! Azure Resource Manager over the [`World`]: the methods that the operator uses, nothing else.
//!
//! A world's account is a subscription (in lower case), its regions are locations, and a zone `LOCATION-N` is zone N there.
//! Addresses are in resource group `addresses`, machines and their interfaces in `mc_nodes`. As in the real cloud, names are
//! read in any case, and answered in another one than they were asked in.

mod desk;
mod errors;
mod handlers;
mod interfaces;
mod names;
mod render;
mod tokens;

use std::collections::BTreeMap;

pub(super) use self::tokens::{answer_authority, answer_metadata, is_authority};
use self::{desk::Drawer, errors::Trouble};
pub use self::{
    desk::{Desk, Written},
    names::{interface_id, provider_id, vm_id},
};
use super::{
    Recorder,
    wire::{Reply, Request},
};
use crate::world::{Ask, Caller, Place, World};

/// One method of the API. The tests hold this table against the SDK that Azure generates from its own description.
#[derive(Clone, Copy, Debug)]
pub struct ApiMethod {
    /// Resource and method; a world's log has the same.
    pub id: &'static str,
    pub http: &'static str,
    pub path: &'static str,
    pub version: &'static str,
    /// Query parameters that the façade reads, besides `api-version`. Any other is refused.
    pub reads: &'static [&'static str],
    /// Actions that it needs.
    pub actions: &'static [&'static str],
    /// What it answers, as the SDK for Go calls it; `None` for what is in neither of its two modules.
    pub answers: Option<&'static str>,
}

pub const NETWORK: &str = "2024-03-01";
pub const COMPUTE: &str = "2024-07-01";
pub const AUTHORIZATION: &str = "2022-04-01";

const READ_ADDRESSES: &str = "Microsoft.Network/publicIPAddresses/read";
const READ_INTERFACES: &str = "Microsoft.Network/networkInterfaces/read";
pub(super) const WRITE_INTERFACES: &str = "Microsoft.Network/networkInterfaces/write";
pub(super) const JOIN_ADDRESS: &str = "Microsoft.Network/publicIPAddresses/join/action";
const JOIN_SUBNET: &str = "Microsoft.Network/virtualNetworks/subnets/join/action";
const JOIN_SECURITY_GROUP: &str = "Microsoft.Network/networkSecurityGroups/join/action";
const JOIN_POOL: &str = "Microsoft.Network/loadBalancers/backendAddressPools/join/action";
const READ_OPERATIONS: &str = "Microsoft.Network/locations/operations/read";
const READ_MACHINES: &str = "Microsoft.Compute/virtualMachines/read";

/// Every action that some method needs.
pub const ACTIONS: &[&str] = &[
    READ_ADDRESSES,
    READ_INTERFACES,
    WRITE_INTERFACES,
    JOIN_ADDRESS,
    JOIN_SUBNET,
    JOIN_SECURITY_GROUP,
    JOIN_POOL,
    READ_OPERATIONS,
    READ_MACHINES,
];

/// The end of the path of the list of what is permitted, on any scope.
const PERMISSIONS: &str = "providers/Microsoft.Authorization/permissions";

/// Every method that is served.
pub const METHODS: &[ApiMethod] = &[
    ApiMethod {
        id: "publicIPAddresses.listAll",
        http: "GET",
        path: "/subscriptions/{subscriptionId}/providers/Microsoft.Network/publicIPAddresses",
        version: NETWORK,
        reads: &["$skiptoken"],
        actions: &[READ_ADDRESSES],
        answers: Some("PublicIPAddressListResult"),
    },
    ApiMethod {
        id: "publicIPAddresses.list",
        http: "GET",
        path: "/subscriptions/{subscriptionId}/resourceGroups/{resourceGroupName}/providers/Microsoft.Network/publicIPAddresses",
        version: NETWORK,
        reads: &["$skiptoken"],
        actions: &[READ_ADDRESSES],
        answers: Some("PublicIPAddressListResult"),
    },
    ApiMethod {
        id: "publicIPAddresses.get",
        http: "GET",
        path: "/subscriptions/{subscriptionId}/resourceGroups/{resourceGroupName}/providers/Microsoft.Network/publicIPAddresses/{publicIpAddressName}",
        version: NETWORK,
        reads: &[],
        actions: &[READ_ADDRESSES],
        answers: Some("PublicIPAddress"),
    },
    ApiMethod {
        id: "networkInterfaces.listAll",
        http: "GET",
        path: "/subscriptions/{subscriptionId}/providers/Microsoft.Network/networkInterfaces",
        version: NETWORK,
        reads: &["$skiptoken"],
        actions: &[READ_INTERFACES],
        answers: Some("InterfaceListResult"),
    },
    ApiMethod {
        id: "networkInterfaces.get",
        http: "GET",
        path: "/subscriptions/{subscriptionId}/resourceGroups/{resourceGroupName}/providers/Microsoft.Network/networkInterfaces/{networkInterfaceName}",
        version: NETWORK,
        reads: &[],
        actions: &[READ_INTERFACES],
        answers: Some("Interface"),
    },
    ApiMethod {
        id: WRITE,
        http: "PUT",
        path: "/subscriptions/{subscriptionId}/resourceGroups/{resourceGroupName}/providers/Microsoft.Network/networkInterfaces/{networkInterfaceName}",
        version: NETWORK,
        reads: &[],
        // A write states every reference anew, and joining each needs a right of its own.
        actions: &[WRITE_INTERFACES, JOIN_SUBNET, JOIN_SECURITY_GROUP, JOIN_POOL],
        answers: Some("Interface"),
    },
    ApiMethod {
        id: "virtualMachines.get",
        http: "GET",
        path: "/subscriptions/{subscriptionId}/resourceGroups/{resourceGroupName}/providers/Microsoft.Compute/virtualMachines/{vmName}",
        version: COMPUTE,
        reads: &["$expand"],
        actions: &[READ_MACHINES],
        answers: Some("VirtualMachine"),
    },
    ApiMethod {
        id: "operations.get",
        http: "GET",
        path: "/subscriptions/{subscriptionId}/providers/Microsoft.Network/locations/{location}/operations/{operationId}",
        version: NETWORK,
        reads: &[],
        actions: &[READ_OPERATIONS],
        answers: None,
    },
    ApiMethod {
        id: "permissions.list",
        http: "GET",
        path: PERMISSIONS,
        version: AUTHORIZATION,
        reads: &[],
        actions: &[],
        answers: None,
    },
];

const WRITE: &str = "networkInterfaces.createOrUpdate";
/// A write that leaves a public address on the interface; in a world's log, so that faults can be meant for one of the two.
pub const ATTACH: &str = "networkInterfaces.createOrUpdate+publicIPAddress";
/// A write that leaves none.
pub const DETACH: &str = "networkInterfaces.createOrUpdate-publicIPAddress";

impl ApiMethod {
    /// The path's parameters, if the path is this method's.
    fn fits(&self, http: &str, path: &[String]) -> Option<BTreeMap<&'static str, String>> {
        let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
        let template: Vec<&'static str> = self.path.trim_start_matches('/').split('/').collect();
        if self.path == PERMISSIONS {
            let end = path.get(path.len().checked_sub(template.len())?..)?;
            let subscription = path.get(1).filter(|_| path.first().is_some_and(|word| same(word, "subscriptions")))?;
            let fits = self.http == http && template.iter().zip(end).all(|(part, given)| same(part, given));
            return fits.then(|| BTreeMap::from([("subscriptionId", subscription.to_lowercase())]));
        }
        if self.http != http || template.len() != path.len() {
            return None;
        }
        let mut found = BTreeMap::new();
        for (part, given) in template.into_iter().zip(path) {
            match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                Some(name) if !given.is_empty() => {
                    found.insert(name, given.to_lowercase());
                }
                _ if same(part, given) => {}
                _ => return None,
            }
        }
        Some(found)
    }
}

/// A request that was routed.
struct Routed {
    method: &'static ApiMethod,
    /// In lower case, as everything here is read in any case.
    path: BTreeMap<&'static str, String>,
    request: Request,
}

impl Routed {
    /// A parameter of the path; routing has made sure that those of the template are there.
    fn part(&self, name: &str) -> String {
        self.path.get(name).cloned().unwrap_or_default()
    }

    fn account(&self) -> String {
        self.part("subscriptionId")
    }

    fn query(&self, name: &str) -> Option<&String> {
        self.request.query.get(name)
    }

    /// Links are absolute, to where the caller came.
    fn link(&self, drawer: &Drawer, path_and_query: &str) -> String {
        let host = self.request.headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
        let host = drawer.links_at.as_deref().unwrap_or(host);
        format!("http://{host}{path_and_query}")
    }

    /// The call in the world's words.
    fn ask(&self) -> Ask {
        let place = self.path.get("location").map_or(Place::Account, |location| Place::Region(location.clone()));
        Ask {
            method: self.method.id.to_owned(),
            account: self.account(),
            place,
            target: format!("/{}", self.request.path.join("/").to_lowercase()),
            filter: String::new(),
            caller: Caller::Bearer(self.request.bearer()),
            permissions: self.method.actions.iter().map(|action| (*action).to_owned()).collect(),
        }
    }
}

pub(super) async fn answer(request: Request, world: World, desk: Desk, recorder: Recorder) -> Reply {
    let fitting =
        METHODS.iter().find_map(|method| Some((method, method.fits(request.method.as_str(), &request.path)?)));
    let Some((method, path)) = fitting else {
        return Trouble::new(404, "InvalidResourceType", "the simulator does not serve this path").reply();
    };
    match request.query.get("api-version") {
        Some(version) if version == method.version => {}
        Some(version) => {
            let message = format!("The api-version '{version}' is invalid. The simulator serves '{}'.", method.version);
            return Trouble::new(400, "InvalidApiVersionParameter", &message).reply();
        }
        None => {
            return Trouble::new(400, "MissingApiVersionParameter", "The api-version query parameter is required.")
                .reply();
        }
    }
    let unread = |name: &&String| *name != "api-version" && !method.reads.contains(&name.as_str());
    if let Some(name) = request.query.keys().find(unread) {
        let message = format!("the simulator's {} does not know '{name}'", method.id);
        return Trouble::new(400, "InvalidParameter", &message).reply();
    }
    match handlers::answer(&Routed { method, path, request }, &world, &desk).await {
        Ok((headers, body)) => {
            recorder.note(method.id, &body);
            Reply::With(200, headers, body)
        }
        Err(errors::Failure::Trouble(trouble)) => trouble.reply(),
        Err(errors::Failure::Silence) => Reply::Silence,
        Err(errors::Failure::Closed) => Reply::Closed,
    }
}
