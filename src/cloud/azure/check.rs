//! The self-test: which credentials, which permissions. Changes nothing.
//!
//! Reading is tested by reading. What a write needs is looked up in what the cloud lists as permitted: on the resource
//! groups of the addresses and of the machines' interfaces, and on each thing that an interface refers to, because a write
//! states those anew and needs the right to join them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    Azure,
    credential::whose,
    ids::{self, Id},
    permissions::Permitted,
    read::{ADDRESSES, INTERFACES, MACHINE, NETWORK_VERSION},
    translate::{Interface, PublicAddress, User},
};
use crate::cloud::{CloudError, ErrorKind, Finding, Scope};

const CREDENTIALS: &str = "credentials";
const READ_ADDRESSES: &str = "Microsoft.Network/publicIPAddresses/read";
const JOIN_ADDRESS: &str = "Microsoft.Network/publicIPAddresses/join/action";
const READ_INTERFACES: &str = "Microsoft.Network/networkInterfaces/read";
const WRITE_INTERFACES: &str = "Microsoft.Network/networkInterfaces/write";
const READ_OPERATIONS: &str = "Microsoft.Network/locations/operations/read";
const READ_MACHINES: &str = "Microsoft.Compute/virtualMachines/read";

const POLL: &str = "locations.operations.get";

/// What an interface can refer to, by the kind in lower case, and the right that stating it needs.
const JOINS: [(&str, &str); 6] = [
    ("microsoft.network/virtualnetworks/subnets", "Microsoft.Network/virtualNetworks/subnets/join/action"),
    ("microsoft.network/networksecuritygroups", "Microsoft.Network/networkSecurityGroups/join/action"),
    (
        "microsoft.network/loadbalancers/backendaddresspools",
        "Microsoft.Network/loadBalancers/backendAddressPools/join/action",
    ),
    ("microsoft.network/loadbalancers/inboundnatrules", "Microsoft.Network/loadBalancers/inboundNatRules/join/action"),
    (
        "microsoft.network/applicationsecuritygroups",
        "Microsoft.Network/applicationSecurityGroups/joinIpConfiguration/action",
    ),
    (
        "microsoft.network/applicationgateways/backendaddresspools",
        "Microsoft.Network/applicationGateways/backendAddressPools/join/action",
    ),
];

impl Azure {
    /// Permissions can be looked up for a thing only, so what there is nothing of cannot be tested, and is said so.
    pub(super) async fn self_test(&self, scope: &Scope) -> Vec<Finding> {
        let credentials = self.test_credentials().await;
        if !credentials.ok {
            // Everything else would only say the same again.
            return vec![credentials];
        }
        let addresses = self.addresses(&scope.account, scope.resource_group.as_deref()).await;
        let interfaces = self.interfaces(&scope.account).await;
        let mut findings = vec![credentials];
        let at = subscription(&scope.account);
        findings.push(listed(READ_ADDRESSES, ADDRESSES, addresses.as_ref().map(Vec::len), &at));
        findings.push(listed(READ_INTERFACES, INTERFACES, interfaces.as_ref().map(Vec::len), &at));
        findings.push(self.test_operations(scope, &at).await);
        let region = ids::location(&scope.region);
        let addresses = addresses.unwrap_or_default();
        let ours: Vec<_> = addresses.iter().filter(|address| address.reserved && address.location == region).collect();
        let nodes = Nodes::of(interfaces.unwrap_or_default(), &ours);
        findings.extend(self.test_addresses(&ours).await);
        findings.push(self.test_machine(&nodes).await);
        findings.extend(self.test_interfaces(&nodes).await);
        findings
    }

    async fn test_credentials(&self) -> Finding {
        match self.read(CREDENTIALS, self.transport.token()).await {
            Ok(token) => {
                let whose = whose(token.token.secret()).map(|whose| format!(" to {whose}")).unwrap_or_default();
                Finding::passed(CREDENTIALS, format!("an access token was issued{whose}"))
            }
            Err(error) => Finding::failed(CREDENTIALS, &error, ErrorKind::Unauthenticated.remedy()),
        }
    }

    /// Without this permission every change is accepted and then never seen to end. Who may ask is told that there is no
    /// such operation; who may not is told that.
    async fn test_operations(&self, scope: &Scope, at: &str) -> Finding {
        let location = ids::location(&scope.region);
        let path = format!(
            "{at}/providers/Microsoft.Network/locations/{location}/operations/00000000-0000-0000-0000-000000000000"
        );
        match self.get_json(POLL, self.url(&path, NETWORK_VERSION)).await {
            Err(error) if error.kind == ErrorKind::Denied => {
                Finding::failed(READ_OPERATIONS, &error, &grant(READ_OPERATIONS, at))
            }
            // A 404 in whatever words, of an operation that never was.
            Err(error) if !matches!(error.kind, ErrorKind::NotFound | ErrorKind::Unknown | ErrorKind::Invalid) => {
                Finding::failed(READ_OPERATIONS, &error, error.kind.remedy())
            }
            _ => Finding::passed(READ_OPERATIONS, format!("not refused in {location}")),
        }
    }

    async fn test_addresses(&self, addresses: &[&PublicAddress]) -> Vec<Finding> {
        let groups: BTreeSet<String> = addresses.iter().map(|address| group(&address.id)).collect();
        if groups.is_empty() {
            return vec![untested(JOIN_ADDRESS, "no address is reserved in this region")];
        }
        let mut findings = Vec::new();
        for path in &groups {
            findings.extend(self.test(path, &[JOIN_ADDRESS]).await);
        }
        findings
    }

    async fn test_machine(&self, nodes: &Nodes) -> Finding {
        let Some((interface, machine)) = nodes.sample() else {
            return untested(READ_MACHINES, "no interface of a machine is shown");
        };
        let read = match ids::machine(MACHINE, machine) {
            Ok(id) => self.machine(&id).await,
            Err(error) => Err(error),
        };
        match read {
            Ok(_) => Finding::passed(READ_MACHINES, format!("{machine} was read")),
            Err(error) if error.kind == ErrorKind::Denied => {
                Finding::failed(READ_MACHINES, &error, &grant(READ_MACHINES, &group(&interface.id)))
            }
            Err(error) => Finding::failed(READ_MACHINES, &error, error.kind.remedy()),
        }
    }

    async fn test_interfaces(&self, nodes: &Nodes) -> Vec<Finding> {
        if nodes.groups.is_empty() {
            return vec![untested(WRITE_INTERFACES, "no interface of a machine is shown")];
        }
        let mut findings = Vec::new();
        let mut joined = BTreeSet::new();
        for (path, interface) in &nodes.groups {
            let tested = self.test(path, &[WRITE_INTERFACES]).await;
            if !nodes.hold && tested.iter().any(|finding| !finding.ok) && nodes.groups.len() > 1 {
                // Nothing says that the operator's nodes are in this group.
                findings.push(untested(WRITE_INTERFACES, &format!("not granted on {path}: needed if nodes are there")));
                continue;
            }
            findings.extend(tested);
            for (reference, action) in self.references(interface).await {
                if joined.insert(reference.key()) {
                    findings.extend(self.test(reference.text(), &[action]).await);
                }
            }
        }
        findings
    }

    /// Everything that this interface refers to and that needs a right to be joined.
    async fn references(&self, interface: &Interface) -> Vec<(Id, &'static str)> {
        let read = self.get_json(INTERFACES, self.url(interface.id.text(), NETWORK_VERSION)).await;
        let mut found = Vec::new();
        if let Ok((_, body)) = read {
            collect(&body, &mut found);
        }
        found
    }

    /// One finding for each action on the scope, or one for the question when that failed.
    async fn test(&self, path: &str, actions: &[&'static str]) -> Vec<Finding> {
        let permitted = self.permitted(path).await;
        let finding = |action: &&'static str| told(action, path, &permitted);
        actions.iter().map(finding).collect()
    }
}

fn told(action: &str, path: &str, permitted: &Result<Permitted, CloudError>) -> Finding {
    match permitted {
        Ok(permitted) if permitted.grants(action) => Finding::passed(action, format!("granted on {path}")),
        Ok(_) => Finding {
            ok: false,
            subject: action.to_owned(),
            message: format!("not granted on {path}; {}", grant(action, path)),
        },
        Err(error) => Finding::failed(action, error, error.kind.remedy()),
    }
}

/// The groups in which the machines' interfaces stand, each with one of them.
struct Nodes {
    groups: BTreeMap<String, Interface>,
    /// They are those of machines that hold an address; else all that there are.
    hold: bool,
}

impl Nodes {
    fn of(interfaces: Vec<Interface>, addresses: &[&PublicAddress]) -> Self {
        let used: BTreeSet<String> = addresses
            .iter()
            .filter_map(|address| match &address.user {
                User::Interface(config) => config.interface().map(|id| id.key()),
                User::Nobody | User::Other(_) => None,
            })
            .collect();
        let machines = interfaces.into_iter().filter(|interface| interface.machine.is_some());
        let (holders, others): (Vec<_>, Vec<_>) = machines.partition(|interface| used.contains(&interface.id.key()));
        let hold = !holders.is_empty();
        let chosen = if hold { holders } else { others };
        Self { groups: chosen.into_iter().map(|interface| (group(&interface.id), interface)).collect(), hold }
    }

    fn sample(&self) -> Option<(&Interface, &crate::cloud::ProviderId)> {
        self.groups.values().find_map(|interface| Some((interface, interface.machine.as_ref()?)))
    }
}

fn collect(value: &Value, found: &mut Vec<(Id, &'static str)>) {
    match value {
        Value::Object(fields) => {
            let id = fields.get("id").and_then(Value::as_str).and_then(Id::parse);
            let action = id.as_ref().and_then(|id| JOINS.iter().find(|(kind, _)| *kind == id.kind));
            if let (Some(id), Some((_, action))) = (id.clone(), action) {
                found.push((id, action));
            }
            fields.values().for_each(|value| collect(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, found)),
        _ => {}
    }
}

fn subscription(account: &str) -> String {
    format!("/subscriptions/{account}")
}

/// In one case, or a group that is spelled twice would be asked about twice.
fn group(id: &Id) -> String {
    format!("{}/resourceGroups/{}", subscription(&id.subscription), id.group).to_lowercase()
}

fn listed(action: &str, call: &'static str, count: Result<usize, &CloudError>, at: &str) -> Finding {
    match count {
        Ok(count) => Finding::passed(action, format!("{call}: {count} shown in the subscription")),
        Err(error) if error.kind == ErrorKind::Denied => Finding::failed(action, error, &grant(action, at)),
        Err(error) => Finding::failed(action, error, error.kind.remedy()),
    }
}

/// Said openly rather than passed over: the absence of a failure is no proof here.
fn untested(action: &str, why: &str) -> Finding {
    Finding::passed(action, format!("not tested: {why}; the operator's role must hold it"))
}

fn grant(action: &str, scope: &str) -> String {
    format!(
        "add \"{action}\" to the actions of the operator's role (az role definition update --role-definition role.json), and see that it is assigned there: az role assignment create --assignee CLIENT_ID --role \"ip-address-controller\" --scope {scope}"
    )
}
