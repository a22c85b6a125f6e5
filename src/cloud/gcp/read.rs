//! Asking: addresses in bulk and one by one, machines one by one. Never changes anything.

use std::{
    future::Future,
    net::IpAddr,
    time::{Duration, Instant},
};

use google_cloud_compute_v1::model::AddressAggregatedList;
use google_cloud_gax::error::Error;

use super::{
    Gcp, errors,
    translate::{self, Live},
};
use crate::cloud::{
    CloudError, ErrorKind, Interface, Provider, ProviderId, Reservation, Scope, Seat, Survey, Whereabouts,
    request::request,
};

/// Begins the names of requests in traces.
pub(super) const SERVICE: &str = "compute";

const LIST: &str = "addresses.list";
const AGGREGATED: &str = "addresses.aggregatedList";
const GET: &str = "instances.get";

/// The most that the API gives at once: one call serves a region of up to so many addresses.
const PAGE: u32 = 500;

impl Gcp {
    pub(super) async fn read_survey(&self, scope: &Scope) -> Result<Survey, CloudError> {
        let began = Instant::now();
        let addresses =
            within(self.operation_timeout, LIST, self.list(scope, "addressType=EXTERNAL")).await?.into_iter().collect();
        Ok(Survey { began, addresses })
    }

    pub(super) async fn read_whereabouts(&self, scope: &Scope, address: IpAddr) -> Result<Whereabouts, CloudError> {
        if let Some(reservation) = self.reserved(scope, address).await? {
            return Ok(Whereabouts::Here(reservation));
        }
        within(self.operation_timeout, AGGREGATED, self.elsewhere(scope, address)).await
    }

    pub(super) async fn read_seat(&self, machine: &ProviderId) -> Result<Seat, CloudError> {
        let live = self.live(machine).await?;
        let interface = self.interface(&live).await?;
        Ok(Seat { machine: live.machine, power: live.power, interface })
    }

    pub(super) async fn live(&self, machine: &ProviderId) -> Result<Live, CloudError> {
        let place = translate::place(GET, machine)?;
        let get = self.instances.get().set_project(&place.account).set_zone(&place.zone).set_instance(&place.machine);
        let instance = self.read(GET, get.send()).await?;
        translate::live(GET, machine, &instance)
    }

    /// A config does not say whether its address is reserved; the machine's own project and region do.
    pub(super) async fn interface(&self, live: &Live) -> Result<Interface, CloudError> {
        let Some(config) = &live.config else {
            return Ok(Interface::Empty);
        };
        if let Some(ip) = config.ip {
            let place = translate::place(LIST, &live.machine.place)?;
            if self.reserved(&place.scope(), ip).await?.is_some() {
                return Ok(Interface::Reserved(ip));
            }
        }
        Ok(Interface::Ephemeral(config.own.clone()))
    }

    /// The reservation of an address in the scope's region.
    pub(super) async fn reserved(&self, scope: &Scope, address: IpAddr) -> Result<Option<Reservation>, CloudError> {
        let found = self.list(scope, &format!("address=\"{address}\"")).await?;
        Ok(found.into_iter().find_map(|(ip, reservation)| (ip == address).then_some(reservation)))
    }

    async fn list(&self, scope: &Scope, filter: &str) -> Result<Vec<(IpAddr, Reservation)>, CloudError> {
        let mut addresses = Vec::new();
        let mut token = String::new();
        loop {
            let list = self
                .addresses
                .list()
                .set_project(&scope.account)
                .set_region(&scope.region)
                .set_filter(filter)
                .set_max_results(PAGE)
                .set_page_token(token);
            let page = self.read(LIST, list.send()).await?;
            whole(LIST, page.warning.as_ref().map(|warning| warning.code.as_ref().and_then(|code| code.name())))?;
            addresses.extend(page.items.iter().filter_map(translate::reservation));
            match page.next_page_token.filter(|token| !token.is_empty()) {
                Some(next) => token = next,
                None => return Ok(addresses),
            }
        }
    }

    /// An address that is not in the scope's region: in another one, or nowhere. Nowhere only if every region answered.
    async fn elsewhere(&self, scope: &Scope, address: IpAddr) -> Result<Whereabouts, CloudError> {
        let mut token = String::new();
        let mut all_answered = Ok(());
        loop {
            let list = self
                .addresses
                .aggregated_list()
                .set_project(&scope.account)
                .set_filter(format!("address=\"{address}\""))
                .set_max_results(PAGE)
                .set_page_token(token);
            let page = self.read(AGGREGATED, list.send()).await?;
            if let Some((region, reservation)) = pick(&page, address) {
                return Ok(if region == scope.region {
                    Whereabouts::Here(reservation)
                } else {
                    Whereabouts::OtherRegion(region)
                });
            }
            all_answered = all_answered.and_then(|()| every_region(&page));
            match page.next_page_token.filter(|token| !token.is_empty()) {
                Some(next) => token = next,
                None => return all_answered.map(|()| Whereabouts::NotFound),
            }
        }
    }

    /// One read within its deadline; the client may send it again within that.
    pub(super) async fn read<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, CloudError> {
        request(Provider::Gcp, SERVICE, call, self.in_time(call, answer)).await
    }

    pub(super) async fn in_time<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, CloudError> {
        let answer = match tokio::time::timeout(self.timeout, answer).await {
            Ok(answer) => answer.map_err(|error| errors::of_read(call, &error)),
            Err(_) => Err(errors::late(call)),
        };
        self.believed(answer)
    }

    /// What was answered; credentials that were refused are not used again.
    pub(super) fn believed<T>(&self, answer: Result<T, CloudError>) -> Result<T, CloudError> {
        answer.inspect_err(|error| {
            if error.kind == ErrorKind::Unauthenticated {
                self.credentials.refused();
            }
        })
    }
}

async fn within<T>(
    limit: Duration,
    call: &'static str,
    work: impl Future<Output = Result<T, CloudError>>,
) -> Result<T, CloudError> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(errors::late(call)),
    }
}

/// Scopes are keyed `regions/us-west1` and `global`.
fn pick(page: &AddressAggregatedList, address: IpAddr) -> Option<(String, Reservation)> {
    page.items.iter().find_map(|(scope, listed)| {
        let (_, reservation) =
            listed.addresses.iter().filter_map(translate::reservation).find(|(ip, _)| *ip == address)?;
        Some((scope.strip_prefix("regions/").unwrap_or(scope).to_owned(), reservation))
    })
}

fn every_region(page: &AddressAggregatedList) -> Result<(), CloudError> {
    if let Some(silent) = page.unreachables.first() {
        return Err(partial(AGGREGATED, silent));
    }
    whole(AGGREGATED, page.warning.as_ref().map(|warning| warning.code.as_ref().and_then(|code| code.name())))?;
    page.items.values().try_for_each(|listed| {
        whole(AGGREGATED, listed.warning.as_ref().map(|warning| warning.code.as_ref().and_then(|code| code.name())))
    })
}

/// A list that comes with a warning is whole only if the warning is that it is empty (R2): the other codes, and those
/// that Google will invent, are read as "something is missing".
fn whole(call: &'static str, warning: Option<Option<&str>>) -> Result<(), CloudError> {
    match warning {
        None | Some(Some("NO_RESULTS_ON_PAGE")) => Ok(()),
        Some(code) => Err(partial(call, code.unwrap_or("a warning without a code"))),
    }
}

fn partial(call: &'static str, why: &str) -> CloudError {
    CloudError::new(ErrorKind::Unavailable, call, format!("the answer is not whole: {why}"))
}

#[cfg(test)]
mod tests {
    use google_cloud_compute_v1::model::{
        Address, AddressesScopedList,
        addresses_scoped_list::{Warning, warning::Code},
    };

    use super::*;

    fn listed(ip: &str) -> AddressesScopedList {
        AddressesScopedList::new().set_addresses([Address::new().set_address(ip)])
    }

    fn warned(code: Code) -> AddressesScopedList {
        AddressesScopedList::new().set_warning(Warning::new().set_code(code))
    }

    #[test]
    fn an_address_is_found_in_the_region_that_lists_it() {
        let page = AddressAggregatedList::new().set_items([
            ("regions/us-west1", warned(Code::NoResultsOnPage)),
            ("regions/us-east1", listed("203.0.113.7")),
            ("global", listed("203.0.113.8")),
        ]);
        let region = |ip: &str| pick(&page, ip.parse().unwrap()).map(|(region, _)| region);
        assert_eq!(region("203.0.113.7").as_deref(), Some("us-east1"));
        assert_eq!(region("203.0.113.8").as_deref(), Some("global"));
        assert_eq!(region("203.0.113.9"), None);
        assert!(every_region(&page).is_ok());
    }

    #[test]
    fn a_region_that_did_not_answer_makes_the_list_partial() {
        for page in [
            AddressAggregatedList::new().set_items([("regions/us-west1", warned(Code::Unreachable))]),
            AddressAggregatedList::new().set_items([("regions/us-west1", warned(Code::PartialSuccess))]),
            AddressAggregatedList::new().set_items([("regions/us-west1", warned(Code::from("NEW_WORD")))]),
            AddressAggregatedList::new().set_unreachables(["regions/us-west1"]),
        ] {
            assert_eq!(every_region(&page).unwrap_err().kind, ErrorKind::Unavailable);
        }
        assert!(whole(LIST, Some(None)).is_err());
    }
}
