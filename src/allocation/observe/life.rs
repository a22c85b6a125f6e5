//! What is known of the nodes that hold addresses: whether they are there, in trouble, and alive.

use std::time::Duration;

use jiff::Timestamp;

use super::{Eyes, FRESH_SEAT, answers::is_gone};
use crate::{
    allocation::{
        decide::{
            facts::{Entry, Holder, Labels, Life, NodeObject, NodeView},
            state::State,
        },
        tables::{Key, Tables},
    },
    api,
    cloud::{self, Power, Seat, limits::Urgency},
};

/// A wake and its pass take so long at most: a read that a pass asked for in the instant in which it saw the trouble may
/// have begun that much before the pass's own clock.
const AWAKE: Duration = Duration::from_secs(1);

impl Eyes<'_> {
    pub(super) fn holder(&self, entry: &Entry, tables: &mut Tables) -> Option<Holder> {
        let name = entry.node.clone()?;
        let machine = entry.machine.as_ref()?;
        let now = self.around.moment.now;
        // A Node of that name on another machine is not the node of this one: ours is gone.
        let node = self.around.node(&name).filter(|node| node.place().is_none_or(|place| place == machine.place));
        let absent_since = tables.seen_absent(&machine.place, node.is_none(), &self.around.moment);
        let Some(node) = node else {
            let life = self.life(machine, Some(absent_since), tables);
            return Some(Holder { name, life, object: NodeObject::Absent { since: absent_since } });
        };
        let not_ready = tables.not_ready(&name, node.not_ready_since(), now);
        let renumbered = node.instance().is_some_and(|instance| instance != machine.instance);
        let releasing = entry.state == State::Releasing;
        let life = if let Some(trouble) = not_ready {
            self.life(machine, Some(trouble.seen_since), tables)
        } else if renumbered || releasing || node.out_of_service() || node.deleting() {
            self.life(machine, None, tables)
        } else {
            Life::Unknown
        };
        let object = NodeObject::Present(NodeView {
            selected: node.matches(&self.subject.object.spec.node_selector),
            cordoned: node.cordoned(),
            not_ready,
            disrupted: node.disrupted(&self.around.disruption_taints),
            out_of_service: node.out_of_service(),
            labels: match node.label(api::ALLOCATION_LABEL) {
                Some(whose) if whose != self.subject.name && self.claims.holds(whose, &name) => Labels::Others,
                // Its own, or left behind by one that has nothing there any more.
                Some(_) | None => node.labels_for(&self.subject.name, &entry.ip.to_string()),
            },
            tainted: self.claims.taints().are_on(node),
        });
        Some(Holder { name, life, object })
    }

    /// The machine's life by a live read, asked anew every interval while it matters. `since`: when the trouble was first
    /// seen; what was read before says nothing about it, and is asked anew at once.
    fn life(&self, machine: &cloud::MachineId, since: Option<Timestamp>, tables: &Tables) -> Life {
        let Some(scope) = self.subject.scope_at(&machine.place) else { return Life::Unknown };
        let age = self.subject.interval.min(FRESH_SEAT);
        let lasts = since.and_then(|since| Duration::try_from(self.around.moment.now.duration_since(since)).ok());
        let trouble = lasts.map_or(Duration::MAX, |lasts| lasts + AWAKE);
        let life = self.known_life(machine, trouble.min(age * 2), tables);
        let urgency = match life {
            Life::Unknown if since.is_some() => Urgency::Failover,
            Life::Unknown => Urgency::Drain,
            // It was told a moment ago: many that are only watched must not be in the way of what is lost. Where no turn comes in
            // time it is unknown again.
            Life::Running | Life::Stopped | Life::Gone | Life::Replaced => Urgency::Survey,
        };
        self.inspect(&scope, &machine.place, age.min(trouble), urgency);
        life
    }

    /// As a read says that is younger than `age`, and began after the last change of the machine.
    fn known_life(&self, machine: &cloud::MachineId, age: Duration, tables: &Tables) -> Life {
        let known = self.answers.inspected(&machine.place).filter(|answer| self.since(answer.began) < age);
        let Some(answer) = known else { return Life::Unknown };
        if !tables.reads.counts([&Key::Machine(machine.place.clone())], answer.began) {
            return Life::Unknown;
        }
        if is_gone(answer) {
            return Life::Gone;
        }
        match &answer.result {
            Err(_) => Life::Unknown,
            Ok(seat) if seat.machine != *machine => Life::Replaced,
            Ok(Seat { power: Power::Running, .. }) => Life::Running,
            Ok(Seat { power: Power::Stopped, .. }) => Life::Stopped,
            Ok(Seat { power: Power::Changing, .. }) => Life::Unknown,
        }
    }
}
