//! `spec.nodeTaint`: which of our taints a node should have. Pure.
//!
//! The taint is the mirror of `ip.ready`: a selected node has it until an address is verified there, whose address that may
//! be, and has it again before the address leaves. What is put on nodes stands in `status.nodeTaint` before it is put
//! there, so that it can be taken off when `spec.nodeTaint` is gone, or the allocation.
//!
//! Key and effect say whose a taint is, as in the API, which takes no second one of both: a pool that registers its nodes
//! with the taint has given it to us. A taint of anybody else is never touched.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Taint;
use kube::ResourceExt;

use super::observe::nodes::SlimNode;
use crate::api::{AppliedTaint, DeletionPolicy, Mode, NetIPAllocation, NodeTaint, READY_LABEL, READY_VALUE};

/// The taints of all allocations, the oldest allocation's first.
#[derive(Clone, Debug, Default)]
pub struct NodeTaints(Vec<Kept>);

/// The taint of one allocation.
#[derive(Clone, Debug)]
struct Kept {
    taint: AppliedTaint,
    wanted: Wanted,
    /// Nodes that entries name: an address that leaves takes its labels off there, selected or not.
    nodes: BTreeSet<String>,
}

/// The nodes that should have a taint while no address is there.
#[derive(Clone, Debug)]
enum Wanted {
    /// Those that the allocation selects, and those that its addresses are on.
    OnSelected(BTreeMap<String, String>),
    /// Those that its addresses are on, which leave: it is being deleted.
    OnHolders,
    /// None: the spec does not ask for it any more.
    Nowhere,
}

impl NodeTaints {
    /// From every allocation as it may be acted on. One that is observed has no say, nor one that is let go with its
    /// labels left as they are.
    pub fn of<'a>(allocations: impl IntoIterator<Item = &'a NetIPAllocation>) -> Self {
        let mut all: Vec<&NetIPAllocation> = allocations.into_iter().filter(|object| !is_left_alone(object)).collect();
        all.sort_by_key(|object| (object.creation_timestamp().map(|time| time.0), object.uid()));
        Self(all.into_iter().filter_map(kept).collect())
    }

    /// The same without `released`, whose taints are on no node any more unless another one wants them there.
    #[must_use]
    pub fn without<'a>(
        released: impl IntoIterator<Item = &'a NetIPAllocation>,
        others: impl IntoIterator<Item = &'a NetIPAllocation>,
    ) -> Self {
        let Self(mut all) = Self::of(others);
        let gone = released.into_iter().filter_map(|object| object.status.as_ref()?.node_taint.clone());
        all.extend(gone.map(|taint| Kept { taint, wanted: Wanted::Nowhere, nodes: BTreeSet::new() }));
        Self(all)
    }

    /// There is nothing to put on or to take off.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the node's taints should be, given its labels; `None` if they are.
    pub fn on(&self, node: &SlimNode) -> Option<Vec<Taint>> {
        let ready = node.label(READY_LABEL) == Some(READY_VALUE);
        let mut wanted: Vec<&AppliedTaint> = Vec::new();
        for kept in self.0.iter().filter(|kept| !ready && kept.wants(node)) {
            if !wanted.iter().any(|other| is_same(other, &kept.taint)) {
                wanted.push(&kept.taint);
            }
        }
        let present = node.spec.taints.clone().unwrap_or_default();
        let mut taints: Vec<Taint> = Vec::with_capacity(present.len() + wanted.len());
        for taint in &present {
            match wanted.iter().find(|known| is_it(taint, known)) {
                Some(known) if value(taint.value.as_ref()) == value(known.value.as_ref()) => taints.push(taint.clone()),
                Some(known) => taints.push(spelt(known)),
                None if self.0.iter().any(|kept| is_it(taint, &kept.taint)) => {}
                None => taints.push(taint.clone()),
            }
        }
        let missing = wanted.iter().filter(|known| !present.iter().any(|taint| is_it(taint, known)));
        taints.extend(missing.map(|known| spelt(known)));
        (taints != present).then_some(taints)
    }

    /// Whether the node has one of ours: where an address is verified, it must not.
    pub fn are_on(&self, node: &SlimNode) -> bool {
        node.spec.taints.iter().flatten().any(|taint| self.0.iter().any(|kept| is_it(taint, &kept.taint)))
    }

    /// Whether the node has that taint and should not.
    pub fn is_left_on(&self, node: &SlimNode, known: &AppliedTaint) -> bool {
        let has = |taints: &[Taint]| taints.iter().any(|taint| is_it(taint, known));
        has(node.spec.taints.as_deref().unwrap_or_default()) && self.on(node).is_some_and(|taints| !has(&taints))
    }
}

impl Kept {
    fn wants(&self, node: &SlimNode) -> bool {
        let holds = || self.nodes.contains(&node.name_any());
        match &self.wanted {
            Wanted::OnSelected(selector) => node.matches(selector) || holds(),
            Wanted::OnHolders => holds(),
            Wanted::Nowhere => false,
        }
    }
}

/// What is recorded, and only that, is put on nodes.
fn kept(object: &NetIPAllocation) -> Option<Kept> {
    let status = object.status.as_ref()?;
    let taint = status.node_taint.clone()?;
    let wanted = match object.metadata.deletion_timestamp {
        _ if !asks_for(object, &taint) => Wanted::Nowhere,
        None => Wanted::OnSelected(object.spec.node_selector.clone()),
        Some(_) => Wanted::OnHolders,
    };
    Some(Kept { taint, wanted, nodes: status.addresses.iter().filter_map(|entry| entry.node.clone()).collect() })
}

/// The recorded taint, once the allocation wants it on no node any more.
pub fn over(object: &NetIPAllocation) -> Option<&AppliedTaint> {
    let status = object.status.as_ref()?;
    let taint = status.node_taint.as_ref().filter(|_| !is_left_alone(object))?;
    let gone = object.metadata.deletion_timestamp.is_some() && status.addresses.is_empty();
    (gone || !asks_for(object, taint)).then_some(taint)
}

/// What `status.nodeTaint` says next. `none_left`: the one that is [`over`] is on no node any more.
pub fn recorded(object: &NetIPAllocation, none_left: bool) -> Option<AppliedTaint> {
    let old = object.status.as_ref().and_then(|status| status.node_taint.clone());
    if is_left_alone(object) {
        return old;
    }
    let terminating = object.metadata.deletion_timestamp.is_some();
    match (old, object.spec.node_taint.as_ref().map(applied)) {
        (Some(old), _) if terminating => Some(old).filter(|_| !none_left),
        (None, _) if terminating => None,
        (None, asked) => asked,
        (Some(old), Some(asked)) if is_same(&old, &asked) => Some(asked),
        (Some(_), asked) if none_left => asked,
        (Some(old), _) => Some(old),
    }
}

fn is_left_alone(object: &NetIPAllocation) -> bool {
    let terminating = object.metadata.deletion_timestamp.is_some();
    object.spec.mode == Mode::Observe || (terminating && object.spec.deletion_policy == DeletionPolicy::Retain)
}

fn asks_for(object: &NetIPAllocation, taint: &AppliedTaint) -> bool {
    object.spec.node_taint.as_ref().is_some_and(|spec| is_same(&applied(spec), taint))
}

fn applied(spec: &NodeTaint) -> AppliedTaint {
    AppliedTaint { key: spec.key.clone(), value: spec.value.clone(), effect: spec.effect.as_str().to_owned() }
}

fn spelt(known: &AppliedTaint) -> Taint {
    Taint { key: known.key.clone(), value: known.value.clone(), effect: known.effect.clone(), time_added: None }
}

fn is_it(taint: &Taint, known: &AppliedTaint) -> bool {
    taint.key == known.key && taint.effect == known.effect
}

fn is_same(one: &AppliedTaint, other: &AppliedTaint) -> bool {
    one.key == other.key && one.effect == other.effect
}

/// An empty value is none.
fn value(text: Option<&String>) -> &str {
    text.map_or("", String::as_str)
}

#[cfg(test)]
mod tests;
