//! The gateway role: doors and admission, handing rows to the bus.
//!
//! [`Gateway`] is the whole of it, `gateway.rs` its map. A request is answered only after the bus has acknowledged each of
//! its rows; what cannot be kept is refused with a reason, to the sender's face and in the counters of [`GatewayMetrics`].
//! What a refusal looks like to a sender is in [`Refusal`].

mod admit;
mod decompress;
mod doors;
mod gateway;
mod gather;
mod inflight;
mod intake;
mod layout;
mod metrics;
mod missing;
mod pack;
mod refusal;
mod rejects;
mod settings;
mod share;
mod ticks;

#[cfg(test)]
mod testing;

pub use admit::SENDER_TS;
pub use gateway::{Addresses, BindError, Doors, Gateway, StopError};
pub use intake::{Ack, Intake};
pub use metrics::{DoorRows, GatewayMetrics};
pub use missing::MissingNode;
pub use refusal::Refusal;
pub use settings::{
    GatherSettings, ImplausibleSettings, KafkaFormat, KafkaInSettings, LoadSettings, RequestSettings, Settings,
    ShareSettings,
};

/// Where rows come in. Its name is a metric label and the first half of a row's `source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Door {
    /// OTLP over gRPC.
    OtlpGrpc,
    /// OTLP over HTTP, protobuf or JSON.
    OtlpHttp,
    /// `POST /v1/ndjson`.
    Ndjson,
    /// `POST /v1/arrow`: the agent's uplink.
    Arrow,
    /// Prometheus remote write: `POST /api/v1/write`.
    RemoteWrite,
    /// The agent of the same process.
    Agent,
    /// Kafka topics that others write.
    Kafka,
}

impl Door {
    /// Every door, in the order of their numbers.
    pub const ALL: [Door; 7] =
        [Door::OtlpGrpc, Door::OtlpHttp, Door::Ndjson, Door::Arrow, Door::RemoteWrite, Door::Agent, Door::Kafka];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Door::OtlpGrpc => "otlp_grpc",
            Door::OtlpHttp => "otlp_http",
            Door::Ndjson => "ndjson",
            Door::Arrow => "arrow",
            Door::RemoteWrite => "remote_write",
            Door::Agent => "agent",
            Door::Kafka => "kafka",
        }
    }
}
