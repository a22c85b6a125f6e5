//! The EC2 Query API (2016-11-15) over the [`World`]: the actions that the operator uses, nothing else. And what its
//! credentials need: `AssumeRoleWithWebIdentity` of STS, and the agent of EKS Pod Identity.
//!
//! A signed request names a region but no account, so it goes to the account that has the region: one account of the
//! world has AWS regions.

mod credentials;
mod errors;
mod handlers;
mod ids;
mod query;
mod render;
mod xml;

pub use self::ids::{allocation_id, association_id, instance_id, interface_id, provider_id};
pub(super) use self::{credentials::pod_identity, xml::Document};
use self::{errors::Trouble, query::Query};
use super::{
    Recorder,
    wire::{Reply, Request},
};
use crate::world::{Ask, Caller, Place, World};

/// One action of the API, in the words of AWS's own description, against which the tests check this table.
#[derive(Clone, Copy, Debug)]
pub struct Action {
    /// For example `DescribeAddresses`; so it stands in a world's log, a dry run with ` (dry run)` behind it.
    pub name: &'static str,
    /// Parameters that the façade reads. Any other is refused, so that nothing is ignored unseen.
    pub reads: &'static [&'static str],
    /// Filters that it understands. Any other is refused too.
    pub filters: &'static [&'static str],
    pub permission: &'static str,
}

/// Every action that is served.
pub const ACTIONS: &[Action] = &[
    Action {
        name: "DescribeAddresses",
        reads: &["Filter", "DryRun"],
        filters: &["public-ip", "allocation-id"],
        permission: "ec2:DescribeAddresses",
    },
    Action {
        name: "DescribeInstances",
        reads: &["Filter", "MaxResults", "NextToken", "DryRun"],
        filters: &["instance-id"],
        permission: "ec2:DescribeInstances",
    },
    Action { name: "DescribeRegions", reads: &["DryRun"], filters: &[], permission: "ec2:DescribeRegions" },
    Action {
        name: "AssociateAddress",
        reads: &[
            "AllocationId",
            "InstanceId",
            "NetworkInterfaceId",
            "PrivateIpAddress",
            "AllowReassociation",
            "DryRun",
        ],
        filters: &[],
        permission: "ec2:AssociateAddress",
    },
    Action {
        name: "DisassociateAddress",
        reads: &["AssociationId", "DryRun"],
        filters: &[],
        permission: "ec2:DisassociateAddress",
    },
    Action {
        name: "ModifyNetworkInterfaceAttribute",
        reads: &["NetworkInterfaceId", "AssociatePublicIpAddress", "DryRun"],
        filters: &[],
        permission: "ec2:ModifyNetworkInterfaceAttribute",
    },
];

/// A request that was routed.
struct Routed {
    action: &'static Action,
    query: Query,
    region: String,
    account: String,
    key: Option<String>,
}

impl Routed {
    /// The call in the world's words.
    fn ask(&self, target: String, dry: bool) -> Ask {
        Ask {
            method: if dry { format!("{} (dry run)", self.action.name) } else { self.action.name.to_owned() },
            account: self.account.clone(),
            place: Place::Region(self.region.clone()),
            target,
            filter: String::new(),
            caller: Caller::Bearer(self.key.clone()),
            permissions: vec![self.action.permission.to_owned()],
        }
    }
}

pub(super) async fn answer(request: Request, world: World, recorder: Recorder) -> Reply {
    let query = Query::parse(&request.body);
    match (query.text("Version"), query.text("Action")) {
        (Some("2011-06-15"), Some(action)) => credentials::sts(action, &query, &world, &recorder),
        (Some("2016-11-15"), Some(action)) => {
            let Some(action) = ACTIONS.iter().find(|known| known.name == action) else {
                return Trouble::no_such_action(action).reply();
            };
            if let Some(name) = query.unread(action) {
                return Trouble::unknown_parameter(action, &name).reply();
            }
            let (key, region) = match credentials::signature(&request.headers) {
                Some((key, region)) => (Some(key), region),
                None => (None, String::new()),
            };
            let account =
                world.inventory(|inventory| inventory.account_of(&region).map(str::to_owned)).unwrap_or_default();
            let routed = Routed { action, query, region, account, key };
            match handlers::answer(&routed, &world).await {
                Ok(body) => {
                    recorder.note(action.name, &body);
                    Reply::Xml(200, xml::ec2(action.name, &body))
                }
                Err(errors::Failure::Trouble(trouble)) => trouble.reply(),
                Err(errors::Failure::Silence) => Reply::Silence,
                Err(errors::Failure::Closed) => Reply::Closed,
            }
        }
        _ => Trouble::no_such_action("without a version that is served").reply(),
    }
}
