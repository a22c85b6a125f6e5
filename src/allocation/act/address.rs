//! Taking an address off a machine.

use std::time::Instant;

use super::{Actor, Deed, Done, Noted, told};
use crate::{
    allocation::decide::{
        Cut,
        facts::User,
        leaving,
        users::{self, Workload},
    },
    cloud::{Cloud, Detach, Holder, Verified, Whereabouts},
};

impl Actor {
    /// L2: labels off and taint on; the node's pods live; who came late is asked to go and waited for; cut; verify.
    pub(super) async fn detach(
        &self,
        deed: &Deed,
        cloud: &dyn Cloud,
        node: &str,
        order: &Detach,
        cut: Cut,
        noted: &mut Vec<Noted>,
    ) -> Done {
        let Deed { machine, allocation, left_by, taints, .. } = deed;
        match self.unlabel(node, machine, allocation, left_by.as_deref(), taints, noted).await {
            Done::Node(Some(written)) => self.nodes.wrote(*written),
            Done::Node(None) => {}
            Done::NodeFailed(why) => {
                noted.push(Noted::NotPatched(why.clone()));
                return Done::HeldBack(why);
            }
            other => return other,
        }
        if let Some(held) = self.late_users(deed, node, cut, noted).await {
            return Done::HeldBack(held);
        }
        match cut {
            Cut::Never => self.look(deed, cloud).await,
            Cut::WhenUnused | Cut::Now => told(cloud.detach(order).await),
        }
    }

    /// Why the cut must wait, if it must.
    async fn late_users(&self, deed: &Deed, node: &str, cut: Cut, noted: &mut Vec<Noted>) -> Option<String> {
        if cut == Cut::Now {
            return None;
        }
        if cut == Cut::WhenUnused && deed.workload == Workload::Unknown {
            return Some("whether the workload exists cannot be read now".to_owned());
        }
        let pods = match self.pods.live(node).await {
            Ok(pods) => pods,
            Err(_) if cut == Cut::Never => return None,
            Err(why) => return Some(why),
        };
        let users: Vec<User> = users::users(&pods, &deed.workload)
            .into_iter()
            .filter(|user| deed.cause.is_none_or(|cause| leaving::keeps(cause, user, deed.evict)))
            .collect();
        let staying: Vec<User> =
            users.iter().filter(|user| user.terminating_until.is_none() && !user.hold).cloned().collect();
        if deed.evict || cut == Cut::Never {
            let asked = self.ask_all(&staying).await;
            noted.extend(asked.into_iter().map(|(user, asked)| Noted::Asked(Box::new(user), asked)));
        }
        match users.first() {
            Some(user) if cut == Cut::WhenUnused => Some(format!(
                "waits for {} pod{} on node {node} that came late: {}",
                users.len(),
                if users.len() == 1 { "" } else { "s" },
                user.name
            )),
            Some(_) | None => None,
        }
    }

    /// Where it is now, by id: nothing was cut.
    async fn look(&self, deed: &Deed, cloud: &dyn Cloud) -> Done {
        let began = Instant::now();
        match cloud.find(&deed.scope, deed.ip).await {
            Ok(Whereabouts::Here(reservation)) => Done::Verified(Verified::read(began, reservation.holder)),
            Ok(Whereabouts::OtherRegion(_) | Whereabouts::NotFound) => {
                Done::Verified(Verified::read(began, Holder::Free))
            }
            Err(error) => Done::Failed(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, sync::Arc, time::Duration};

    use async_trait::async_trait;
    use http::Method;
    use jiff::Timestamp;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::{
        allocation::{
            api_server::{self, refused},
            decide::Effect,
        },
        cloud::{Attach, CloudError, Finding, MachineId, ProviderId, Restore, Restored, Scope, Seat, Survey},
    };

    /// A cloud that must not be called.
    struct Untouched;

    #[async_trait]
    impl Cloud for Untouched {
        async fn survey(&self, _: &Scope) -> Result<Survey, CloudError> {
            unreachable!("survey")
        }
        async fn find(&self, _: &Scope, _: IpAddr) -> Result<Whereabouts, CloudError> {
            unreachable!("find")
        }
        async fn inspect(&self, _: &ProviderId) -> Result<Seat, CloudError> {
            unreachable!("inspect")
        }
        async fn attach(&self, _: &Attach) -> Result<Verified, CloudError> {
            unreachable!("attach")
        }
        async fn detach(&self, _: &Detach) -> Result<Verified, CloudError> {
            unreachable!("detach")
        }
        async fn restore(&self, _: &Restore) -> Result<Restored, CloudError> {
            unreachable!("restore")
        }
        async fn check(&self, _: &Scope) -> Vec<Finding> {
            unreachable!("check")
        }
    }

    #[tokio::test]
    async fn p4_an_address_is_not_cut_while_its_labels_cannot_be_taken_off_and_that_is_told() {
        let client = api_server::client(|parts, _| match parts.method {
            Method::GET => {
                let labels = json!({"ip.ready": "true", "netinfra.darkbrains.com/allocation": "alloc"});
                (200, json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a", "labels": labels}}))
            }
            _ => (403, refused(403, "Forbidden")),
        });
        let machine: MachineId = "gce://p/us-west1-a/a#17".parse().unwrap();
        let effect = Effect::Detach {
            node: "a".to_owned(),
            machine: machine.clone(),
            operation: Uuid::nil(),
            send_before: Timestamp::now() + Duration::from_secs(60),
            cut: Cut::Now,
        };
        let deed = Deed {
            effect,
            ip: "203.0.113.7".parse().unwrap(),
            scope: machine.place.place().unwrap().scope(),
            machine: machine.place,
            node_uid: None,
            allocation: "alloc".to_owned(),
            left_by: None,
            taints: Arc::default(),
            workload: Workload::Unnamed,
            cause: None,
            evict: false,
        };
        let mut noted = Vec::new();
        let actor = Actor::leading(client, Instant::now() + Duration::from_secs(60));
        let done = actor.perform(&deed, Some(&Untouched), &mut noted).await;
        assert!(matches!(&done, Done::HeldBack(why) if why.contains("patching node a failed")), "{done:?}");
        assert!(matches!(noted.as_slice(), [Noted::NotPatched(why)] if why.contains("Forbidden")), "{noted:?}");
    }
}
