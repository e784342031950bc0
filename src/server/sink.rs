//! The layer `sink` of a server: it tells workers where large outputs go, which is the server's own
//! data plane. What is sent there is the worker's matter, with its own bearer.

use std::sync::{Arc, OnceLock};

use serde_json::Value;

use crate::middleware::wrapped::rewritten;
use crate::middleware::{DATA_SINK_ENDPOINT, LayerRegistry, SpawnerLayer};
use crate::spawner::SpawnerAdapter;

/// The key under which programs list the layer.
const KEY: &str = "sink";

/// Where the bodies of a server go. All clones are one.
///
/// An engine is opened with its layers before its server has an address, so the layer is given the
/// sink, and [`Server::bind`](crate::server::Server::bind) fills in the address.
///
/// ```
/// use adjutant::server::{DataSink, ServerCfg};
/// use adjutant::{Engine, EngineCfg, LayerRegistry};
///
/// let sink = DataSink::default();
/// let layers = sink.layers(LayerRegistry::standard());
/// let engine = Engine::new_with_layers(EngineCfg::default(), layers);
/// assert!(engine.layer_registry().hint_keys().contains(&"sink".to_owned()));
/// let cfg = ServerCfg { sink, ..ServerCfg::default() }; // for `Server::bind`
/// # let _ = cfg;
/// ```
#[derive(Debug, Clone, Default)]
pub struct DataSink(Arc<OnceLock<String>>);

impl DataSink {
    /// These layers, with the layer `sink` among those that programs may list.
    #[must_use]
    pub fn layers(&self, layers: LayerRegistry) -> LayerRegistry {
        let sink = self.clone();
        layers.with_hint(KEY, move |_| Arc::new(Layer(sink.clone())))
    }

    /// Says where the server is. The first word stays.
    pub(crate) fn is_at(&self, base: &str) {
        let _ = self.0.set(format!("{base}/v1/data"));
    }
}

/// Writes the address into the context of each attempt, once there is one.
struct Layer(DataSink);

impl SpawnerLayer for Layer {
    fn wrap(&self, inner: Arc<dyn SpawnerAdapter>) -> Arc<dyn SpawnerAdapter> {
        let sink = self.0.clone();
        rewritten(inner, move |ctx| {
            if let Some(address) = sink.0.get() {
                let address = Value::from(address.clone());
                ctx.meta.runtime.insert(DATA_SINK_ENDPOINT.to_owned(), address);
            }
        })
    }
}
