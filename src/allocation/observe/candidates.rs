//! Every selected node, judged, and what is known of its machine.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use kube::ResourceExt;

use super::{
    Eyes, FRESH_SEAT,
    answers::holder,
    nodes::SlimNode,
    verdict::{self, Seated},
};
use crate::{
    allocation::{
        decide::placement::{Candidate, Verdict},
        tables::{Key, Tables},
    },
    cloud::{ErrorKind, ProviderId},
};

impl Eyes<'_> {
    /// Every selected node, judged.
    pub fn candidates(&self, tables: &Tables) -> Vec<Candidate> {
        let selector = &self.subject.object.spec.node_selector;
        let shown = self.around.survey.as_ref().map(|survey| &survey.addresses);
        // With room for all: most addresses are on a machine, and this is made in each pass.
        let mut held: HashSet<&ProviderId> = HashSet::with_capacity(shown.map_or(0, BTreeMap::len));
        held.extend(shown.iter().flat_map(|addresses| addresses.values()).filter_map(holder));
        let judge = |node: &Arc<SlimNode>| self.judge(node, &held, tables);
        let nodes = &self.around.nodes;
        if selector.is_empty() {
            // With the control plane: that it is left out is told.
            nodes.iter().map(judge).collect()
        } else {
            nodes.selected(selector).iter().map(judge).collect()
        }
    }

    fn judge(&self, node: &SlimNode, held: &HashSet<&ProviderId>, tables: &Tables) -> Candidate {
        let (spec, location) = (&self.subject.object.spec, node.location());
        let verdict = match &self.subject.scope {
            Err(_) => Verdict::NoProviderID,
            Ok(scope) => verdict::of(node, location.as_deref(), spec, scope, self.around, |place| {
                self.seated(node, place, held, tables)
            }),
        };
        let why = (verdict == Verdict::Unsupported).then(|| self.why_unsupported(node)).flatten();
        // Where what is shown lags, a machine that has just been changed cannot be read yet: an address would wait for it.
        let is_unreadable = || {
            node.place().is_some_and(|place| !tables.reads.counts([&Key::Machine(place)], self.around.moment.instant))
        };
        Candidate {
            name: node.name_any(),
            zone: location.as_deref().map_or_else(|| node.zone(), |place| &place.zone).to_owned(),
            verdict,
            why,
            last_choice: verdict == Verdict::Eligible && (node.may_end_soon() || is_unreadable()),
        }
    }

    /// Who sits on its machine, `held` being those that the survey shows with an address.
    fn seated(&self, node: &SlimNode, place: &ProviderId, held: &HashSet<&ProviderId>, tables: &Tables) -> Seated<'_> {
        let promised = |name: &str| tables.promised.is_anothers(name, &self.subject.uid);
        if tables.seats.is_taken(place) || node.metadata.name.as_deref().is_some_and(promised) {
            return Seated::Taken;
        }
        let counts = |began| tables.reads.counts([&Key::Machine(place.clone())], began);
        if held.contains(place) && self.around.survey.as_ref().is_some_and(|survey| counts(survey.began)) {
            return Seated::Taken;
        }
        let read = self.answers.inspected(place);
        let read = read.filter(|answer| self.since(answer.began) < FRESH_SEAT && counts(answer.began));
        read.map_or(Seated::Unknown, |answer| Seated::Read(&answer.result))
    }

    /// By the Node itself, or by what the cloud said when its machine was read.
    fn why_unsupported(&self, node: &SlimNode) -> Option<String> {
        let said = || {
            let error = self.answers.inspected(&node.place()?)?.result.as_ref().err()?;
            (error.kind == ErrorKind::Unsupported).then(|| error.message.clone())
        };
        node.unsupported().map(str::to_owned).or_else(said)
    }
}
