//! Null keys of which somebody sees each that is made.

use courser_core::crypto::{KeyFactory, Keys, Material, Opener, Sealer, Secret, Suite, TAG_LEN};
use courser_core::ids::{Cid, Side, Version};
use courser_core::protect::null::NullKeys;

/// Sees what is made, Initial keys apart, and passes it on as it is or changed.
pub trait Watch: Send + Sync {
    /// What keys will be made from.
    fn material(&self, made: Material) -> Material {
        made
    }

    /// The secret of the next phase.
    fn secret(&self, made: Secret) -> Secret {
        made
    }

    /// A key for what is sent.
    fn sealer(&self, _of: &Material, made: Box<dyn Sealer>) -> Box<dyn Sealer> {
        made
    }

    /// A key for what is received.
    fn opener(&self, _of: &Material, made: Box<dyn Opener>) -> Box<dyn Opener> {
        made
    }
}

/// The null keys, watched.
#[derive(Clone, Default)]
pub struct Watched<W>(pub W);

impl<W: Watch> KeyFactory for Watched<W> {
    fn initial(&self, version: Version, dcid: &Cid, side: Side) -> Keys {
        NullKeys.initial(version, dcid, side)
    }

    fn material(&self, version: Version, suite: Suite, secret: &Secret) -> Material {
        self.0.material(NullKeys.material(version, suite, secret))
    }

    fn sealer(&self, suite: Suite, material: &Material) -> Box<dyn Sealer> {
        self.0.sealer(material, NullKeys.sealer(suite, material))
    }

    fn opener(&self, suite: Suite, material: &Material) -> Box<dyn Opener> {
        self.0.opener(material, NullKeys.opener(suite, material))
    }

    fn next_secret(&self, version: Version, suite: Suite, secret: &Secret) -> Secret {
        self.0.secret(NullKeys.next_secret(version, suite, secret))
    }

    fn retry_tag(&self, version: Version, original_dcid: &Cid, retry: &[u8]) -> [u8; TAG_LEN] {
        NullKeys.retry_tag(version, original_dcid, retry)
    }

    fn mac(&self, key: &[u8; 32], data: &[&[u8]]) -> [u8; 32] {
        NullKeys.mac(key, data)
    }

    fn aes128_block(&self, key: &[u8; 16], block: &mut [u8; 16]) {
        NullKeys.aes128_block(key, block);
    }

    fn equal(&self, a: &[u8], b: &[u8]) -> bool {
        NullKeys.equal(a, b)
    }
}
