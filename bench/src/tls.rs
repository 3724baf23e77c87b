//! A certificate for the rows over TLS: made once, signed by itself, believed by nobody but the load.

use std::{fs, path::Path};

use anyhow::{Context, Result};

/// The configuration's table, with a certificate in that folder.
pub(crate) fn section(folder: &Path) -> Result<String> {
    let (cert, key) = (folder.join("bench.crt"), folder.join("bench.key"));
    if !cert.is_file() || !key.is_file() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        fs::write(&cert, made.cert.pem()).with_context(|| format!("{} cannot be written", cert.display()))?;
        fs::write(&key, made.signing_key.serialize_pem())?;
    }
    Ok(format!("[tls]\ncertificates = [{{ cert = {:?}, key = {:?} }}]\n", cert.display(), key.display()))
}
