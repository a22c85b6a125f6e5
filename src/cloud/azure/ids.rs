//! Names of things in Azure: resource ids, provider IDs, locations, zones. Pure.
//!
//! The cloud spells one id in many cases: the Node lower-cases the resource group, the network service upper-cases it.
//! So ids are compared in lower case, and sent as they were given.

use crate::cloud::{CloudError, ErrorKind, Provider, ProviderId};

/// An id of the form `/subscriptions/S/resourceGroups/G/providers/NAMESPACE/KIND/NAME[/KIND/NAME…]`.
#[derive(Clone, Debug)]
pub(super) struct Id {
    text: String,
    pub subscription: String,
    pub group: String,
    /// `microsoft.network/networkinterfaces/ipconfigurations`: namespace and kinds, in lower case.
    pub kind: String,
    /// The name of each kind.
    names: Vec<String>,
}

impl Id {
    /// `None` for what is not such an id, and for parts that would change the path of a request.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().skip(1).any(|part| unusable(part)) {
            return None;
        }
        let ["", s, subscription, g, group, p, namespace, rest @ ..] = parts.as_slice() else {
            return None;
        };
        let words = [(*s, "subscriptions"), (*g, "resourceGroups"), (*p, "providers")];
        if rest.is_empty() || !words.iter().all(|(said, word)| said.eq_ignore_ascii_case(word)) {
            return None;
        }
        let (mut kind, mut names) = (namespace.to_lowercase(), Vec::new());
        for pair in rest.chunks(2) {
            let [step, name] = pair else { return None };
            kind = format!("{kind}/{}", step.to_lowercase());
            names.push((*name).to_owned());
        }
        Some(Self {
            text: text.to_owned(),
            subscription: (*subscription).to_owned(),
            group: (*group).to_owned(),
            kind,
            names,
        })
    }

    /// What two spellings of one id share.
    pub fn key(&self) -> String {
        self.text.to_lowercase()
    }

    /// As it was given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The name of the thing that contains all others: of the interface, where the id is that of its configuration.
    pub fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    /// The interface of which this is an ip configuration.
    pub fn interface(&self) -> Option<Id> {
        (self.kind == IP_CONFIGURATION)
            .then(|| Id::parse(&self.text.split('/').take(9).collect::<Vec<_>>().join("/")))?
    }

    /// `loadBalancers/NAME`, for people.
    pub fn short(&self) -> String {
        self.text.split('/').skip(7).collect::<Vec<_>>().join("/")
    }

    pub fn same_group(&self, other: &Id) -> bool {
        same(&self.subscription, &other.subscription) && same(&self.group, &other.group)
    }
}

const IP_CONFIGURATION: &str = "microsoft.network/networkinterfaces/ipconfigurations";
const MACHINE: &str = "microsoft.compute/virtualmachines";

fn unusable(part: &str) -> bool {
    part.is_empty() || part == "." || part == ".." || part.contains(['?', '#', '%', '\\'])
}

/// Whether two spellings name one thing.
pub(super) fn same(a: &str, b: &str) -> bool {
    a.to_lowercase() == b.to_lowercase()
}

/// The machine that a Node's provider ID names.
///
/// # Errors
/// `Unsupported`, with what to use instead where that is known.
pub(super) fn machine(call: &'static str, machine: &ProviderId) -> Result<Id, CloudError> {
    let unsupported = |why: String| CloudError::new(ErrorKind::Unsupported, call, why);
    if let Some(why) = machine.unsupported() {
        return Err(unsupported(why.to_owned()));
    }
    let id = machine.place().filter(|place| place.provider == Provider::Azure).and_then(|_| {
        let id = Id::parse(machine.as_str().strip_prefix("azure://")?)?;
        (id.kind == MACHINE).then_some(id)
    });
    id.ok_or_else(|| {
        unsupported(format!("{machine} is not a provider ID of the form azure:///subscriptions/…/virtualMachines/NAME"))
    })
}

/// The provider ID of the machine of this id, if it is one.
pub(super) fn provider_id(id: &str) -> Option<ProviderId> {
    Id::parse(id).filter(|id| id.kind == MACHINE).map(|id| ProviderId::new(format!("azure://{}", id.text)))
}

/// `westeurope` of `West Europe`.
pub(super) fn location(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase).collect()
}

/// As in the node label `topology.kubernetes.io/zone`: `westeurope-1`.
pub(super) fn zone(location: &str, number: &str) -> String {
    format!("{location}-{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const VM: &str = "/subscriptions/0A1B/resourceGroups/MC_Nodes/providers/Microsoft.Compute/virtualMachines/Node-1";
    const NIC: &str = "/subscriptions/0a1b/resourceGroups/mc_nodes/providers/Microsoft.Network/networkInterfaces/nic-1";

    #[test]
    fn an_id_says_what_it_names() {
        let id = Id::parse(VM).unwrap();
        assert_eq!((id.subscription.as_str(), id.group.as_str(), id.name()), ("0A1B", "MC_Nodes", "Node-1"));
        assert_eq!(id.text(), VM);
        assert_eq!(id.key(), Id::parse(&VM.to_uppercase()).unwrap().key());
        assert!(id.same_group(&Id::parse(NIC).unwrap()));
    }

    #[test]
    fn an_ip_configuration_says_whose_it_is() {
        let config = Id::parse(&format!("{NIC}/ipConfigurations/ipconfig1")).unwrap();
        let interface = config.interface().unwrap();
        assert_eq!(interface.text(), NIC);
        assert!(interface.interface().is_none());
        let rule = VM.replace("Microsoft.Compute/virtualMachines", "Microsoft.Network/loadBalancers");
        let rule = Id::parse(&format!("{rule}/frontendIPConfigurations/f")).unwrap();
        assert!(rule.interface().is_none());
        assert_eq!(rule.short(), "loadBalancers/Node-1/frontendIPConfigurations/f");
    }

    #[test]
    fn what_would_lead_a_request_elsewhere_is_no_id() {
        for text in [
            "/subscriptions/0a1b/resourceGroups/../providers/Microsoft.Compute/virtualMachines/node-1",
            "/subscriptions/0a1b/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/a?b=c",
            "/subscriptions/0a1b/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/%2e%2e",
            "/subscriptions/0a1b/resourceGroups/g/providers/Microsoft.Compute/virtualMachines",
            "/subscriptions/0a1b/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/",
            "/subscriptions/0a1b/resourceGroups/g/providers/Microsoft.Compute",
            "subscriptions/0a1b/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/a",
            "",
        ] {
            assert!(Id::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_provider_id_names_a_machine_in_any_case() {
        let id = machine("t", &ProviderId::new(format!("azure://{VM}"))).unwrap();
        assert_eq!(id.text(), VM);
        assert_eq!(provider_id(&VM.to_uppercase()).unwrap(), ProviderId::new(format!("azure://{VM}")));
        assert_eq!(provider_id(NIC), None);
    }

    #[test]
    fn a_uniform_scale_sets_machine_is_unsupported_and_told_why() {
        let uniform = VM.replace("virtualMachines", "virtualMachineScaleSets/pool/virtualMachines");
        let error = machine("t", &ProviderId::new(format!("azure://{uniform}"))).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported);
        assert!(error.message.contains("Uniform"), "{error}");
        assert_eq!(machine("t", &ProviderId::new("gce://p/z-a/n")).unwrap_err().kind, ErrorKind::Unsupported);
    }

    #[test]
    fn a_location_has_one_spelling() {
        assert_eq!(location("West Europe"), "westeurope");
        assert_eq!(zone(&location("westeurope"), "1"), "westeurope-1");
    }
}
