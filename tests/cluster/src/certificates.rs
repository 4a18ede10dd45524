//! The certificates of an encrypted cluster: an authority of its own and one certificate for all nodes, made by `keytool`.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Error;
use crate::tool;

/// Of the key stores. They hold nothing worth protecting.
pub(crate) const PASSWORD: &str = "cassandra";

/// Where the files are.
#[derive(Clone, Debug)]
pub(crate) struct Certificates {
    /// The nodes' key and certificate, PKCS #12.
    pub(crate) key_store: PathBuf,
    /// The authority's certificate, PKCS #12.
    pub(crate) trust_store: PathBuf,
    /// The authority's certificate, PEM.
    pub(crate) authority: PathBuf,
}

impl Certificates {
    /// Makes all of them in `directory`, valid for `localhost` and `addresses`.
    pub(crate) fn make(keytool: &Path, directory: &Path, addresses: &[Ipv4Addr]) -> Result<Self, Error> {
        fs::create_dir_all(directory).map_err(Error::io("making", directory))?;
        let file = |name: &str| directory.join(name);
        let made =
            Self { key_store: file("node.p12"), trust_store: file("trust.p12"), authority: file("ca.pem") };
        let authority = file("ca.p12").display().to_string();
        let authority_pem = made.authority.display().to_string();
        let node = made.key_store.display().to_string();
        let trust = made.trust_store.display().to_string();
        let request = file("node.csr").display().to_string();
        let signed = file("node.pem").display().to_string();
        let names: Vec<String> = addresses.iter().map(|address| format!("ip:{address}")).collect();
        let names = format!("san=dns:localhost,{}", names.join(","));
        let key = ["-keyalg", "RSA", "-keysize", "2048", "-validity", "3650", "-storetype", "PKCS12"];

        let run = |store: &str, arguments: &[&str]| {
            let marker = format!("-J-Dtower.cassandra.certificates={}", directory.display());
            let jvm = [marker.as_str(), "-J-Xmx64m", "-J-XX:TieredStopAtLevel=1"];
            let store = ["-keystore", store, "-storepass", PASSWORD];
            let all = jvm.iter().chain(arguments).chain(&store);
            tool::run("keytool", keytool, &marker, all, Duration::from_secs(60)).map(drop)
        };
        let generate = |store: &str, alias: &str, more: &[&str]| {
            let name = format!("CN=test-{alias}");
            run(store, &[&["-genkeypair", "-alias", alias, "-dname", &name], &key[..], more].concat())
        };
        let import = |store: &str, alias: &str, file: &str| {
            run(store, &["-importcert", "-noprompt", "-alias", alias, "-file", file, "-storetype", "PKCS12"])
        };

        generate(&authority, "ca", &["-ext", "bc:c=ca:true", "-ext", "ku:c=keyCertSign,cRLSign"])?;
        run(&authority, &["-exportcert", "-rfc", "-alias", "ca", "-file", &authority_pem])?;
        generate(&node, "node", &[])?;
        run(&node, &["-certreq", "-alias", "node", "-file", &request])?;
        let usage = "eku=serverAuth,clientAuth";
        let sign = ["-gencert", "-alias", "ca", "-rfc", "-validity", "3650", "-ext", &names, "-ext", usage];
        run(&authority, &[&sign[..], &["-infile", &request, "-outfile", &signed]].concat())?;
        import(&node, "ca", &authority_pem)?;
        import(&node, "node", &signed)?;
        import(&trust, "ca", &authority_pem)?;
        Ok(made)
    }
}
