//! The self-test: which credentials, which permissions. Changes nothing.

use google_cloud_compute_v1::model::TestPermissionsRequest;

use super::{Gcp, errors, translate};
use crate::cloud::{CloudError, ErrorKind, Finding, Holder, Place, Scope, Survey};

const CREDENTIALS: &str = "credentials";
const LIST: &str = "compute.addresses.list";
const USE: &str = "compute.addresses.use";
const POLL: &str = "compute.zoneOperations.get";
const EXTERNAL: &str = "compute.subnetworks.useExternalIp";

const TEST_ADDRESS: &str = "addresses.testIamPermissions";
const TEST_MACHINE: &str = "instances.testIamPermissions";
const GET_OPERATION: &str = "zoneOperations.get";

/// What the operator does to a machine.
const ON_MACHINES: [&str; 3] =
    ["compute.instances.get", "compute.instances.addAccessConfig", "compute.instances.deleteAccessConfig"];

impl Gcp {
    /// Permissions can be asked of a thing only, so what there is nothing of cannot be tested, and is said so.
    pub(super) async fn self_test(&self, scope: &Scope) -> Vec<Finding> {
        let credentials = self.test_credentials().await;
        if !credentials.ok {
            // Everything else would only say the same again.
            return vec![credentials];
        }
        let survey = self.read_survey(scope).await;
        let mut findings = vec![credentials, listed(scope, &survey)];
        let reservations = || survey.iter().flat_map(|survey| survey.addresses.values());
        match reservations().next() {
            Some(reservation) => findings.extend(self.test_address(scope, &reservation.name).await),
            None => findings.push(untested(scope, USE)),
        }
        let machine = reservations().find_map(|reservation| match &reservation.holder {
            Holder::Machine(machine) => translate::place(TEST_MACHINE, machine).ok(),
            Holder::Free | Holder::Foreign(_) => None,
        });
        match machine {
            Some(machine) => {
                findings.extend(self.test_machine(machine).await);
                findings.push(self.test_operations(machine).await);
            }
            None => findings.extend(ON_MACHINES.into_iter().chain([POLL]).map(|name| untested(scope, name))),
        }
        findings.push(untested(scope, EXTERNAL));
        findings
    }

    async fn test_credentials(&self) -> Finding {
        let tried = match tokio::time::timeout(self.timeout, self.credentials.current().access_token()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(CloudError::new(ErrorKind::Unauthenticated, CREDENTIALS, error.to_string())),
            Err(_) => Err(errors::late(CREDENTIALS)),
        };
        match tried {
            Ok(()) => Finding::passed(CREDENTIALS, "an access token was issued".to_owned()),
            Err(error) => Finding::failed(CREDENTIALS, &error, ErrorKind::Unauthenticated.remedy()),
        }
    }

    async fn test_address(&self, scope: &Scope, name: &str) -> Vec<Finding> {
        let test = self
            .addresses
            .test_iam_permissions()
            .set_project(&scope.account)
            .set_region(&scope.region)
            .set_resource(name)
            .set_body(TestPermissionsRequest::new().set_permissions([USE]));
        let granted = self.read(TEST_ADDRESS, test.send()).await.map(|answer| answer.permissions);
        permitted(TEST_ADDRESS, &[USE], granted, &format!("address {name}"), &scope.account)
    }

    async fn test_machine(&self, place: &Place) -> Vec<Finding> {
        let test = self
            .instances
            .test_iam_permissions()
            .set_project(&place.account)
            .set_zone(&place.zone)
            .set_resource(&place.machine)
            .set_body(TestPermissionsRequest::new().set_permissions(ON_MACHINES));
        let granted = self.read(TEST_MACHINE, test.send()).await.map(|answer| answer.permissions);
        permitted(TEST_MACHINE, &ON_MACHINES, granted, &format!("machine {}", place.machine), &place.account)
    }

    /// Without this permission every change is accepted and then never seen to end. Who may ask is told that there is no
    /// such operation; who may not is told that.
    async fn test_operations(&self, place: &Place) -> Finding {
        let get = self
            .operations
            .get()
            .set_project(&place.account)
            .set_zone(&place.zone)
            .set_operation("operation-of-the-self-test");
        match self.read(GET_OPERATION, get.send()).await {
            Err(error) if error.kind == ErrorKind::Denied => {
                Finding::failed(POLL, &error, &grant(POLL, &place.account))
            }
            Err(error) if error.kind != ErrorKind::NotFound => Finding::failed(POLL, &error, error.kind.remedy()),
            _ => Finding::passed(POLL, format!("granted in zone {}", place.zone)),
        }
    }
}

/// One finding for each permission, or one for the question when that failed.
fn permitted(
    call: &'static str,
    wanted: &[&str],
    granted: Result<Vec<String>, CloudError>,
    on: &str,
    project: &str,
) -> Vec<Finding> {
    let granted = match granted {
        Ok(granted) => granted,
        Err(error) => return vec![Finding::failed(call, &error, error.kind.remedy())],
    };
    let finding = |permission: &&str| match granted.iter().any(|granted| granted == permission) {
        true => Finding::passed(permission, format!("granted on {on}")),
        false => Finding {
            ok: false,
            subject: (*permission).to_owned(),
            message: format!("not granted on {on}; {}", grant(permission, project)),
        },
    };
    wanted.iter().map(finding).collect()
}

fn listed(scope: &Scope, survey: &Result<Survey, CloudError>) -> Finding {
    match survey {
        Ok(survey) => {
            Finding::passed(LIST, format!("{} external addresses in {}", survey.addresses.len(), scope.region))
        }
        Err(error) if error.kind == ErrorKind::Denied => Finding::failed(LIST, error, &grant(LIST, &scope.account)),
        Err(error) => Finding::failed(LIST, error, error.kind.remedy()),
    }
}

/// Said openly rather than passed over: the absence of a failure is no proof here.
fn untested(scope: &Scope, permission: &str) -> Finding {
    Finding::passed(
        permission,
        format!(
            "not tested: nothing to ask it of in {}; the custom role in project {} must hold it",
            scope.region, scope.account
        ),
    )
}

fn grant(permission: &str, project: &str) -> String {
    format!(
        "add it to the operator's custom role: gcloud iam roles update ROLE --project={project} --add-permissions={permission}"
    )
}
