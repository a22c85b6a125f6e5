//! Asking: addresses and interfaces in bulk, machines one by one. Never changes anything.

use std::{
    collections::BTreeMap,
    future::Future,
    net::IpAddr,
    time::{Duration, Instant},
};

use azure_core::{Continuable, Method, Pageable, Request, Response, error::Error, headers::Headers};
use futures::StreamExt as _;
use serde_json::Value;
use url::Url;

use super::{
    Azure, errors,
    ids::{self, Id},
    interface::Document,
    translate::{self, Interface, Machine, PublicAddress, User},
};
use crate::cloud::{
    self, CloudError, ErrorKind, Holder, MachineId, Provider, ProviderId, Reservation, Scope, Seat, Survey,
    Whereabouts, request::request,
};

/// Begins the names of requests in traces.
pub(super) const SERVICE: &str = "ARM";

pub(super) const ADDRESSES: &str = "publicIPAddresses.list";
pub(super) const INTERFACES: &str = "networkInterfaces.list";
pub(super) const ADDRESS: &str = "publicIPAddresses.get";
pub(super) const INTERFACE: &str = "networkInterfaces.get";
pub(super) const MACHINE: &str = "virtualMachines.get";

/// What the typed client speaks too.
pub(super) const NETWORK_VERSION: &str = "2024-03-01";

/// A machine and its primary interface, both just read.
#[derive(Clone, Debug)]
pub(super) struct Live {
    pub machine: Machine,
    pub document: Document,
}

impl Azure {
    /// Two lists, whatever there is of addresses and machines, and their further pages.
    pub(super) async fn read_survey(&self, scope: &Scope) -> Result<Survey, CloudError> {
        let began = Instant::now();
        let lists = async {
            let addresses = self.addresses(&scope.account, scope.resource_group.as_deref());
            futures::try_join!(addresses, self.interfaces(&scope.account))
        };
        let (addresses, interfaces) = within(self.operation_timeout, ADDRESSES, lists).await?;
        let joined = Joined::new(interfaces);
        let region = ids::location(&scope.region);
        let in_scope = addresses.iter().filter(|address| address.reserved && address.location == region);
        let addresses = in_scope.filter_map(|address| Some((address.ip?, joined.reservation(address)))).collect();
        Ok(Survey { began, addresses })
    }

    /// An address that sits on a machine is here whatever the scope says of region and group: an edit of those must not
    /// make it look gone.
    pub(super) async fn read_whereabouts(&self, scope: &Scope, address: IpAddr) -> Result<Whereabouts, CloudError> {
        let Some(found) = within(self.operation_timeout, ADDRESSES, self.locate(&scope.account, address)).await? else {
            return Ok(Whereabouts::NotFound);
        };
        let reservation = self.shown(&found, None).await?.0;
        let in_region = found.location == ids::location(&scope.region);
        let in_group = scope.resource_group.as_ref().is_none_or(|group| ids::same(group, &found.id.group));
        Ok(match &reservation.holder {
            _ if in_region && in_group => Whereabouts::Here(reservation),
            Holder::Machine(_) => Whereabouts::Here(reservation),
            _ if !in_region => Whereabouts::OtherRegion(found.location),
            _ => Whereabouts::NotFound,
        })
    }

    pub(super) async fn read_seat(&self, machine: &ProviderId) -> Result<Seat, CloudError> {
        let id = ids::machine(MACHINE, machine)?;
        let live = self.live(&id).await?;
        let view = &live.document.view;
        let interface = match view.public().or(view.besides.as_ref()) {
            None => cloud::Interface::Empty,
            // Whatever it is, reserved or not, and on whichever configuration: an interface that has a public address is no
            // seat (F7).
            Some(public) => match self.address(public).await?.ip {
                Some(ip) => cloud::Interface::Reserved(ip),
                None => {
                    let what = format!("{machine} has the public address {}, which has no number yet", public.name());
                    return Err(CloudError::new(ErrorKind::Conflict, ADDRESS, what));
                }
            },
        };
        let machine = MachineId { place: machine.clone(), instance: live.machine.life };
        Ok(Seat { machine, power: live.machine.power, interface })
    }

    pub(super) async fn live(&self, id: &Id) -> Result<Live, CloudError> {
        let machine = self.machine(id).await?;
        let document = self.document_of(id, &machine).await?;
        Ok(Live { machine, document })
    }

    pub(super) async fn machine(&self, id: &Id) -> Result<Machine, CloudError> {
        let get = self.compute.virtual_machines_client().get(&id.group, id.name(), &id.subscription);
        let shown = self.read(MACHINE, get.expand("instanceView").into_future()).await?;
        translate::machine(&shown).ok_or_else(|| incomplete(MACHINE, id))
    }

    /// A machine's primary interface. That it is missing says nothing about the machine, which was just shown.
    pub(super) async fn document_of(&self, id: &Id, machine: &Machine) -> Result<Document, CloudError> {
        let Some(interface) = &machine.interface else {
            let why = format!("{} has no interface that the cloud calls primary", id.name());
            return Err(CloudError::new(ErrorKind::Unsupported, MACHINE, why));
        };
        self.document(interface).await.map_err(|error| match error.kind {
            ErrorKind::NotFound => CloudError { kind: ErrorKind::Unavailable, ..error },
            _ => error,
        })
    }

    /// One interface with every field that it has.
    pub(super) async fn document(&self, id: &Id) -> Result<Document, CloudError> {
        let (_, body) = self.get_json(INTERFACE, self.url(id.text(), NETWORK_VERSION)).await?;
        Document::new(body).ok_or_else(|| incomplete(INTERFACE, id))
    }

    pub(super) async fn address(&self, id: &Id) -> Result<PublicAddress, CloudError> {
        let get = self.network.public_ip_addresses_client().get(&id.group, id.name(), &id.subscription);
        let shown = self.read(ADDRESS, get.into_future()).await?;
        translate::public_address(&shown).ok_or_else(|| incomplete(ADDRESS, id))
    }

    /// The reserved address of that number, wherever in the subscription. There is no call by number.
    pub(super) async fn locate(&self, subscription: &str, ip: IpAddr) -> Result<Option<PublicAddress>, CloudError> {
        let addresses = self.addresses(subscription, None).await?;
        Ok(addresses.into_iter().find(|address| address.reserved && address.ip == Some(ip)))
    }

    /// An address with its holder, and whether neither address nor interface is being changed. `known` is an interface
    /// that was just read as its machine's primary one.
    pub(super) async fn shown(
        &self,
        address: &PublicAddress,
        known: Option<&Interface>,
    ) -> Result<(Reservation, bool), CloudError> {
        let User::Interface(config) = &address.user else {
            return Ok((translate::reservation(address, None, false), address.at_rest));
        };
        let Some(id) = config.interface() else {
            return Ok((translate::reservation(address, None, false), address.at_rest));
        };
        if let Some(known) = known.filter(|known| known.id.key() == id.key()) {
            return Ok((translate::reservation(address, Some(known), true), address.at_rest && known.at_rest));
        }
        let interface = match self.document(&id).await {
            Ok(document) => document.view,
            // Deleted since: the address does not say so yet.
            Err(error) if error.kind == ErrorKind::NotFound => {
                return Ok((translate::reservation(address, None, false), false));
            }
            Err(error) => return Err(error),
        };
        let primary = interface.primary || self.is_primary(&interface).await?;
        let at_rest = address.at_rest && interface.at_rest;
        Ok((translate::reservation(address, Some(&interface), primary), at_rest))
    }

    /// What the interface does not say, its machine does.
    async fn is_primary(&self, interface: &Interface) -> Result<bool, CloudError> {
        let Some(machine) = &interface.machine else { return Ok(false) };
        match self.machine(&ids::machine(MACHINE, machine)?).await {
            Ok(machine) => Ok(machine.interface.is_some_and(|primary| primary.key() == interface.id.key())),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn addresses(
        &self,
        subscription: &str,
        group: Option<&str>,
    ) -> Result<Vec<PublicAddress>, CloudError> {
        let client = self.network.public_ip_addresses_client();
        let pages = match group {
            Some(group) => client.list(group, subscription).into_stream(),
            None => client.list_all(subscription).into_stream(),
        };
        self.pages(ADDRESSES, pages, |page| page.value.iter().filter_map(translate::public_address).collect()).await
    }

    pub(super) async fn interfaces(&self, subscription: &str) -> Result<Vec<Interface>, CloudError> {
        let pages = self.network.network_interfaces_client().list_all(subscription).into_stream();
        self.pages(INTERFACES, pages, |page| page.value.iter().filter_map(translate::interface).collect()).await
    }

    /// What is wanted of all pages, or an error (R2). Of a page no more is kept meanwhile: interfaces say a lot.
    async fn pages<P, T>(
        &self,
        call: &'static str,
        mut pages: Pageable<P, Error>,
        items: impl Fn(P) -> Vec<T>,
    ) -> Result<Vec<T>, CloudError>
    where
        P: Continuable,
    {
        let mut all = Vec::new();
        loop {
            let next = async {
                match tokio::time::timeout(self.timeout, pages.next()).await {
                    Ok(page) => page.transpose().map_err(|error| errors::of_read(call, &error)),
                    Err(_) => Err(errors::late(call)),
                }
            };
            let Some(page) = request(Provider::Azure, SERVICE, call, next).await? else { return Ok(all) };
            // To ask beyond the last page sends nothing.
            let last = page.continuation().is_none();
            all.extend(items(page));
            if last {
                return Ok(all);
            }
        }
    }

    /// One answer as it came.
    pub(super) async fn get_json(&self, call: &'static str, url: Url) -> Result<(Headers, Value), CloudError> {
        self.read(call, self.json(url)).await
    }

    pub(super) async fn json(&self, url: Url) -> azure_core::Result<(Headers, Value)> {
        let (_, headers, body) = self.send(Request::new(url, Method::Get)).await?.deconstruct();
        Ok((headers, body.json().await?))
    }

    pub(super) async fn send(&self, mut request: Request) -> azure_core::Result<Response> {
        self.pipeline.send(&azure_core::Context::default(), &mut request).await
    }

    /// The path comes from an id, which was looked at for what must not be in one.
    pub(super) fn url(&self, path: &str, version: &str) -> Url {
        let mut url = self.endpoint.clone();
        url.set_path(path);
        url.query_pairs_mut().append_pair("api-version", version);
        url
    }

    /// One read, sent once, within its deadline.
    pub(super) async fn read<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = azure_core::Result<T>>,
    ) -> Result<T, CloudError> {
        request(Provider::Azure, SERVICE, call, self.in_time(call, answer)).await
    }

    /// What has to be there before a call, within the call's deadline.
    pub(super) async fn in_time<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = azure_core::Result<T>>,
    ) -> Result<T, CloudError> {
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(answer) => answer.map_err(|error| errors::of_read(call, &error)),
            Err(_) => Err(errors::late(call)),
        }
    }
}

/// The interfaces of a subscription, to find the machine of an address by.
struct Joined {
    interfaces: BTreeMap<String, Interface>,
    /// How many interfaces each machine has.
    counts: BTreeMap<ProviderId, usize>,
}

impl Joined {
    fn new(interfaces: Vec<Interface>) -> Self {
        let mut counts: BTreeMap<ProviderId, usize> = BTreeMap::new();
        for machine in interfaces.iter().filter_map(|interface| interface.machine.clone()) {
            let count = counts.entry(machine).or_default();
            *count = count.saturating_add(1);
        }
        let interfaces = interfaces.into_iter().map(|interface| (interface.id.key(), interface)).collect();
        Self { interfaces, counts }
    }

    fn reservation(&self, address: &PublicAddress) -> Reservation {
        let interface = match &address.user {
            User::Interface(config) => config.interface().and_then(|id| self.interfaces.get(&id.key())),
            User::Nobody | User::Other(_) => None,
        };
        translate::reservation(address, interface, interface.is_some_and(|interface| self.is_primary(interface)))
    }

    /// The cloud says so, or it is the only one.
    fn is_primary(&self, interface: &Interface) -> bool {
        let alone = interface.machine.as_ref().and_then(|machine| self.counts.get(machine)) == Some(&1);
        interface.primary || alone
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

fn incomplete(call: &'static str, id: &Id) -> CloudError {
    CloudError::new(ErrorKind::Unknown, call, format!("{} was shown without its id", id.short()))
}

/// Same subscription: an address cannot go to another one.
pub(super) fn same_account(call: &'static str, scope: &Scope, machine: &Id) -> Result<(), CloudError> {
    if scope.provider == Provider::Azure && ids::same(&scope.account, &machine.subscription) {
        return Ok(());
    }
    let why = format!("the machine is in subscription {}, the address in {}", machine.subscription, scope.account);
    Err(CloudError::new(ErrorKind::Invalid, call, why))
}
