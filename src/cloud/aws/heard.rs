//! What goes over the wire, as the SDK shows it to an interceptor: each attempt, and each answer with EC2's own id of it.

use aws_sdk_ec2::{
    config::{
        ConfigBag, Intercept, RuntimeComponents,
        interceptors::{BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef},
    },
    error::BoxError,
    operation::RequestId as _,
};

use crate::cloud::request::exchange;

/// EC2's own id of a request; its support asks for it.
const REQUEST_ID: &str = "aws.request_id";

/// Hears the requests of a client; changes none, and never fails one.
#[derive(Debug)]
pub(super) struct Heard;

impl Intercept for Heard {
    fn name(&self) -> &'static str {
        "heard"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request();
        let url = url::Url::parse(request.uri()).ok();
        exchange::sent(request.method(), url.as_ref().and_then(|url| url.host_str()));
        Ok(())
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        exchange::answered(response.status().as_u16(), response.request_id().map(|id| (REQUEST_ID, id)));
        Ok(())
    }
}
