//! Under which address does the driver connect to a node, where addresses are translated?

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use scylla::{
    errors::TranslationError,
    policies::address_translator::{AddressTranslator, UntranslatedPeer},
};
use uuid::Uuid;

/// How many nodes' addresses are kept. Of more, the others have to wait for the driver.
const KEPT: usize = 4_096;

/// Translates as the user's does, and keeps what came of it: the driver has a translation made for each connection, and nobody else can
/// ask for one.
pub(super) struct Addresses {
    theirs: Arc<dyn AddressTranslator>,
    known: Mutex<HashMap<Uuid, SocketAddr>>,
}

impl Addresses {
    pub(super) fn new(theirs: Arc<dyn AddressTranslator>) -> Self {
        Self { theirs, known: Mutex::default() }
    }

    pub(super) fn of(&self, host_id: Uuid) -> Option<SocketAddr> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&host_id).copied()
    }

    fn keep(&self, host_id: Uuid, address: SocketAddr) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < KEPT || known.contains_key(&host_id) {
            known.insert(host_id, address);
        }
    }
}

impl AddressTranslator for Addresses {
    // As `async_trait` writes it.
    fn translate_address<'a, 'b, 'all>(
        &'a self,
        peer: &'b UntranslatedPeer<'_>,
    ) -> Pin<Box<dyn Future<Output = Result<SocketAddr, TranslationError>> + Send + 'all>>
    where
        'a: 'all,
        'b: 'all,
        Self: 'all,
    {
        Box::pin(async move {
            let address = self.theirs.translate_address(peer).await?;
            self.keep(peer.host_id(), address);
            Ok(address)
        })
    }
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Addresses").field("known", &self.known).finish_non_exhaustive()
    }
}
