//! What an allocation is about, apart from its addresses' state: its spec, read once a pass.

use std::{borrow::Cow, sync::Arc, time::Duration};

use kube::ResourceExt;

use super::{answers::Answers, nodes::SlimNode};
use crate::{
    allocation::{
        decide::facts::{Entry, Mode},
        memory,
        selection::Selection,
    },
    api::{self, NetIPAllocation},
    cloud::{Place, Provider, ProviderId, Scope},
};

/// What an allocation is about, apart from its addresses' state.
pub struct Subject {
    pub object: Arc<NetIPAllocation>,
    pub uid: String,
    pub name: String,
    pub scope: Result<Scope, String>,
    pub mode: Mode,
    /// The object is being deleted,
    pub terminating: bool,
    /// and addresses and labels stay as they are;
    pub retain: bool,
    /// What machines are owed may be paid: not in mode Observe, but on the way out with Retain, where half-done swaps are
    /// still brought to their end (P10).
    pub pays: bool,
    /// or they are let go.
    pub deleting: bool,
    pub selection: Selection,
    pub interval: Duration,
}

impl Subject {
    /// The version of the object that a pass acts on, and what it is about. `retain`: it is being deleted and lets go of
    /// nothing. `observe_only`: every allocation is read as mode Observe.
    pub fn of(
        object: Arc<NetIPAllocation>,
        retain: bool,
        observe_only: bool,
        nodes: &[Arc<SlimNode>],
        answers: &Answers,
    ) -> Self {
        let terminating = object.metadata.deletion_timestamp.is_some();
        let scope = scope(&object.spec, nodes, || memory::held_places(&object));
        let survey = scope.as_ref().ok().and_then(|scope| answers.survey(scope).0);
        let mode = match object.spec.mode {
            _ if observe_only || retain => Mode::Observe,
            api::Mode::Enforce => Mode::Enforce,
            api::Mode::Hold => Mode::Hold,
            api::Mode::Observe => Mode::Observe,
        };
        Self {
            uid: object.uid().unwrap_or_default(),
            name: object.name_any(),
            scope,
            mode,
            terminating,
            retain,
            pays: !observe_only && object.spec.mode != api::Mode::Observe,
            deleting: terminating && !retain,
            selection: Selection::of(&object, survey.as_deref()),
            interval: Duration::from_secs(u64::try_from(object.spec.reconcile_interval).unwrap_or(30).max(5)),
            object,
        }
    }

    /// Where an entry is read and changed: where its machine stands, whatever the spec says by now. An edit of project or
    /// region must not make an address that sits where it sat look gone.
    ///
    /// # Errors
    /// The sentence for status, where neither entry nor spec nor nodes say it.
    pub fn scope_of(&self, entry: &Entry) -> Result<Scope, String> {
        match entry.machine.as_ref().and_then(|machine| self.scope_at(&machine.place)) {
            Some(scope) => Ok(scope),
            None => self.scope.clone(),
        }
    }

    /// The account and region in which a machine stands. An Azure machine does not say its region: it is that of the spec
    /// or the nodes, and the provider finds what sits on a machine of the subscription wherever that is.
    pub fn scope_at(&self, machine: &ProviderId) -> Option<Scope> {
        let scope = machine.place()?.scope();
        let own = self.scope.as_ref().ok();
        let region = if scope.region.is_empty() { own?.region.clone() } else { scope.region };
        Some(Scope { region, resource_group: self.object.spec.cloud.resource_group.clone(), ..scope })
    }

    /// A survey is asked for anew a little before the interval is over, so that one serves each pass.
    pub fn survey_age(&self) -> Duration {
        self.interval.mul_f32(0.9)
    }

    /// No good survey for so long means that the cloud is not seen.
    pub fn blind_after(&self) -> Duration {
        (self.interval * 10).max(Duration::from_secs(300))
    }
}

/// The cloud that a spec names.
pub fn provider(spec: &api::NetIPAllocationSpec) -> Option<Provider> {
    spec.cloud.provider.map(|name| match name {
        api::ProviderName::Gcp => Provider::Gcp,
        api::ProviderName::Aws => Provider::Aws,
        api::ProviderName::Azure => Provider::Azure,
    })
}

/// Where the addresses of a spec are: given, or that of the nodes it selects, or else of the machines that hold them: a
/// pool that is gone must not keep its addresses from being let go. `held`: those machines, asked for only then.
///
/// # Errors
/// The sentence for status.
pub fn scope(
    spec: &api::NetIPAllocationSpec,
    nodes: &[Arc<SlimNode>],
    held: impl FnOnce() -> Vec<ProviderId>,
) -> Result<Scope, String> {
    let Some(provider) = provider(spec) else {
        return Err("spec.cloud.provider is missing; set it to gcp, aws or azure".to_owned());
    };
    let selected = || nodes.iter().filter(|node| node.matches(&spec.node_selector));
    let held_at = |machine: &ProviderId| {
        let node = nodes.iter().find(|node| node.place().as_ref() == Some(machine));
        node.map_or_else(|| machine.place().cloned(), |node| node.location().map(Cow::into_owned))
    };
    let held = std::iter::once_with(held).flatten().filter_map(|machine| held_at(&machine));
    let mut places = selected().filter_map(|node| node.location().map(Cow::into_owned)).chain(held);
    let place = places.find(|place| {
        place.provider == provider
            && spec.cloud.region.as_ref().is_none_or(|region| place.region.is_empty() || *region == place.region)
    });
    let missing = |rest: String| match selected().find_map(|node| node.unsupported()) {
        Some(why) => format!("no selected node can hold an address: {why}"),
        None => format!("no selected node has a provider ID of {provider}{rest}"),
    };
    let from_nodes = |get: fn(Place) -> String, field: &str| {
        let said = place.clone().map(get).filter(|said| !said.is_empty());
        let rest = || format!(" to take the {field} from; set spec.cloud.{field}, or check spec.nodeSelector");
        said.ok_or_else(|| missing(rest()))
    };
    let account = match (&spec.cloud.project, &spec.cloud.subscription_id) {
        (Some(account), _) => account.clone(),
        (None, Some(account)) => account.to_lowercase(),
        (None, None) => match provider {
            Provider::Gcp => from_nodes(|place| place.account, "project")?,
            // That of the credentials, if there is anything for them: a provider ID does not name it.
            Provider::Aws if place.is_some() => String::new(),
            Provider::Aws => return Err(missing("; check spec.nodeSelector".to_owned())),
            Provider::Azure => from_nodes(|place| place.account, "subscriptionID")?,
        },
    };
    let region = match &spec.cloud.region {
        Some(region) => region.clone(),
        None => from_nodes(|place| place.region, "region")?,
    };
    Ok(Scope { provider, account, region, resource_group: spec.cloud.resource_group.clone() })
}
