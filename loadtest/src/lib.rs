//! What judges a Conch node from the outside: the checker of the delivery promise, the driver that starts and kills real
//! nodes, and a plain protocol client.
pub mod app;
pub mod bad_network;
pub mod bench;
pub mod certificate;
pub mod chaos;
pub mod checker;
pub mod crowd;
pub mod device;
pub mod forward;
pub mod growth;
pub mod http;
pub mod measure;
pub mod node;
mod patience;
pub mod peers;
pub mod raw;
pub mod relay;
pub mod report;
pub mod run;
pub mod scenario;
pub mod slope;
pub mod stop;
