//! Asking: addresses in bulk and one by one, instances one by one. Never changes anything.

use std::{
    error::Error,
    future::Future,
    net::IpAddr,
    time::{Duration, Instant},
};

use aws_sdk_ec2::{
    error::{ProvideErrorMetadata, SdkError},
    types::Filter,
};

use super::{
    Aws,
    connect::repeated,
    errors,
    instance::{self, Live},
    translate::{self, Shown},
};
use crate::cloud::{CloudError, Provider, ProviderId, Scope, Seat, Survey, Whereabouts, request::request};

/// Begins the names of requests in traces.
pub(super) const SERVICE: &str = "EC2";

pub(super) const ADDRESSES: &str = "DescribeAddresses";
pub(super) const INSTANCES: &str = "DescribeInstances";
pub(super) const REGIONS: &str = "DescribeRegions";

impl Aws {
    /// One call, which is never paged: by ids it would fail as a whole for one that is unknown.
    pub(super) async fn read_survey(&self, scope: &Scope) -> Result<Survey, CloudError> {
        let began = Instant::now();
        let addresses = self.addresses(&scope.region, None).await?;
        let addresses = addresses.into_iter().map(|shown| (shown.ip, shown.reservation)).collect();
        Ok(Survey { began, addresses })
    }

    pub(super) async fn read_whereabouts(&self, scope: &Scope, address: IpAddr) -> Result<Whereabouts, CloudError> {
        if let Some(shown) = self.address(&scope.region, address).await? {
            return Ok(Whereabouts::Here(shown.reservation));
        }
        let elsewhere = tokio::time::timeout(self.operation_timeout, self.elsewhere(scope, address)).await;
        Ok(elsewhere.ok().flatten().map_or(Whereabouts::NotFound, Whereabouts::OtherRegion))
    }

    /// As the cloud shows it; a change that follows lays over it what this process has done itself.
    pub(super) async fn read_seat(&self, machine: &ProviderId) -> Result<Seat, CloudError> {
        let live = self.live(machine).await?;
        Ok(Seat { machine: live.machine, power: live.power, interface: live.primary.external })
    }

    pub(super) async fn live(&self, machine: &ProviderId) -> Result<Live, CloudError> {
        let place = translate::place(INSTANCES, machine)?;
        // By filter: by id, one that does not exist would be an error of its own.
        let ask = self.client(&place.region).describe_instances().filters(filter("instance-id", &place.machine));
        let answer = self.read(INSTANCES, ask.customize().config_override(repeated()).send()).await?;
        let mut instances = answer.reservations.iter().flatten().flat_map(|reservation| reservation.instances());
        match instances.next() {
            Some(shown) => instance::live(INSTANCES, machine, shown),
            None => Err(instance::gone(INSTANCES, machine)),
        }
    }

    /// One address of a region.
    pub(super) async fn address(&self, region: &str, address: IpAddr) -> Result<Option<Shown>, CloudError> {
        let only = filter("public-ip", &address.to_string());
        Ok(self.addresses(region, Some(only)).await?.into_iter().find(|shown| shown.ip == address))
    }

    /// The reserved addresses of a region, or those of them that pass.
    pub(super) async fn addresses(&self, region: &str, only: Option<Filter>) -> Result<Vec<Shown>, CloudError> {
        let ask = self.client(region).describe_addresses().set_filters(only.map(|filter| vec![filter]));
        let answer = self.read(ADDRESSES, ask.customize().config_override(repeated()).send()).await?;
        Ok(answer.addresses.iter().flatten().filter_map(|address| translate::shown(region, address)).collect())
    }

    /// The regions that are enabled for the account.
    pub(super) async fn regions(&self, from: &str) -> Result<Vec<String>, CloudError> {
        let ask = self.client(from).describe_regions();
        let answer = self.read(REGIONS, ask.customize().config_override(repeated()).send()).await?;
        Ok(answer.regions.into_iter().flatten().filter_map(|region| region.region_name).collect())
    }

    /// The other region that has the address. One that does not answer, or where we may not look, is passed over: that the
    /// address is not in its own region is known by then, and in which other one it is only helps a person.
    async fn elsewhere(&self, scope: &Scope, address: IpAddr) -> Option<String> {
        for region in self.regions(&scope.region).await.ok()? {
            if region != scope.region && matches!(self.address(&region, address).await, Ok(Some(_))) {
                return Some(region);
            }
        }
        None
    }

    /// One read within its deadline; the client may send it again within that.
    pub(super) async fn read<T, E: ProvideErrorMetadata + Error + 'static>(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<T, SdkError<E>>>,
    ) -> Result<T, CloudError> {
        request(Provider::Aws, SERVICE, call, async {
            self.believed(match tokio::time::timeout(self.timeout, answer).await {
                Ok(answer) => answer.map_err(|error| errors::of_read(call, &error)),
                Err(_) => Err(errors::late(call)),
            })
        })
        .await
    }
}

fn filter(name: &str, value: &str) -> Filter {
    Filter::builder().name(name).values(value).build()
}

/// How long a read may need until it shows what is so, before each further look.
pub(super) const LOOKS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(3)];
