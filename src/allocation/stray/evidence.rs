//! What proves that a machine has no address of ours. Pure.

use std::time::Duration;

use crate::{
    allocation::{
        moment::Moment,
        observe::answers::{Answers, holder},
        tables::{Key, Tables},
    },
    cloud::{ProviderId, Scope},
};

/// A survey older than this proves nothing: nobody keeps that scope surveyed any more.
const BELIEVED: Duration = Duration::from_secs(3600);

/// Whether every survey of its account and region is whole, is later than the last change of the machine, and shows no address there;
/// and nothing of ours sits or works on it. What cannot be read proves nothing (P3).
pub fn is_empty(machine: &ProviderId, home: &Scope, answers: &Answers, tables: &Tables, moment: &Moment) -> bool {
    let Some(surveys) = answers.surveys_at(home, BELIEVED, moment).filter(|surveys| !surveys.is_empty()) else {
        return false;
    };
    let key = Key::Machine(machine.clone());
    let ours = tables.flights.is_busy(&key) || tables.seats.is_taken(machine);
    let counts = surveys.iter().all(|survey| tables.reads.counts([&key], survey.began));
    let mut shown = surveys.iter().flat_map(|survey| survey.addresses.values()).filter_map(holder);
    !ours && counts && !shown.any(|holder| holder == machine)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

    use super::*;
    use crate::{
        allocation::observe::answers::{Question, Reply},
        cloud::{CloudError, ErrorKind, Holder, Provider, Reach, Reservation, Survey},
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn ip() -> IpAddr {
        IpAddr::from([203, 0, 113, 7])
    }

    fn machine() -> ProviderId {
        ProviderId::new("azure:///subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/a")
    }

    fn scope(group: &str) -> Scope {
        Scope {
            provider: Provider::Azure,
            account: "s".to_owned(),
            region: "westeurope".to_owned(),
            resource_group: Some(group.to_owned()),
        }
    }

    /// One machine, of which a survey shows no address.
    struct Scene {
        answers: Answers,
        tables: Tables,
        moment: Moment,
    }

    impl Scene {
        fn new() -> Self {
            let moment = Moment::here();
            let mut scene = Self { answers: Answers::default(), tables: Tables::new(moment.instant - SECOND), moment };
            scene.surveyed("g", Ok(None));
            scene
        }

        /// A survey of that group begins now and shows the address on the machine, or nothing; or it fails.
        fn surveyed(&mut self, group: &str, result: Result<Option<ProviderId>, ErrorKind>) {
            let began = self.moment.instant;
            let reserved = |machine| Reservation {
                holder: Holder::Machine(machine),
                name: "sip-1".to_owned(),
                network_tier: None,
                reach: Reach::default(),
                tags: BTreeMap::new(),
            };
            let survey = |shown: Option<ProviderId>| {
                let addresses = shown.map(|machine| (ip(), reserved(machine))).into_iter().collect();
                Arc::new(Survey { began, addresses })
            };
            let result = result.map(survey).map_err(|kind| CloudError::new(kind, "list", "no"));
            self.answers.arrived(&Question::Survey(scope(group)), began, Reply::Survey(result));
        }

        fn passes(&mut self, time: Duration) {
            self.moment = Moment { instant: self.moment.instant + time, ..self.moment };
        }

        fn is_empty(&self) -> bool {
            super::is_empty(&machine(), &scope("g"), &self.answers, &self.tables, &self.moment)
        }
    }

    #[test]
    fn p3_a_machine_is_empty_when_a_whole_survey_shows_nothing_there() {
        let mut scene = Scene::new();
        assert!(scene.is_empty());
        scene.surveyed("g", Ok(Some(machine())));
        assert!(!scene.is_empty(), "an address is there");
    }

    #[test]
    fn p3_a_survey_that_failed_proves_nothing_whatever_the_one_before_it_showed() {
        let mut scene = Scene::new();
        scene.passes(SECOND);
        scene.surveyed("g", Err(ErrorKind::Unavailable));
        assert!(!scene.is_empty());
    }

    #[test]
    fn p3_one_resource_group_that_cannot_be_read_may_have_the_address() {
        let mut scene = Scene::new();
        scene.surveyed("h", Err(ErrorKind::Denied));
        assert!(!scene.is_empty());
        scene.surveyed("h", Ok(Some(machine())));
        assert!(!scene.is_empty(), "and it has");
        scene.surveyed("h", Ok(None));
        assert!(scene.is_empty());
    }

    #[test]
    fn p3_where_nothing_was_surveyed_or_not_for_long_nothing_is_proven() {
        let mut scene = Scene::new();
        scene.passes(BELIEVED + SECOND);
        assert!(!scene.is_empty());
        scene.answers = Answers::default();
        assert!(!scene.is_empty());
    }

    #[test]
    fn p3_a_survey_from_before_the_last_change_of_the_machine_proves_nothing() {
        let mut scene = Scene::new();
        scene.passes(SECOND);
        scene.tables.changed(&machine(), scene.moment.instant);
        assert!(!scene.is_empty());
        scene.passes(SECOND);
        scene.surveyed("g", Ok(None));
        assert!(scene.is_empty());
    }

    #[test]
    fn p3_a_machine_that_is_promised_or_worked_on_is_not_empty() {
        let mut scene = Scene::new();
        scene.tables.seats.take(&"uid".to_owned(), machine(), ip());
        assert!(!scene.is_empty());
        scene.tables.seats.drop_owner(&"uid".to_owned());
        let ticket = scene.tables.flights.begin([Key::Machine(machine())]).unwrap();
        assert!(!scene.is_empty());
        scene.tables.flights.end(ticket);
        assert!(scene.is_empty());
    }
}
