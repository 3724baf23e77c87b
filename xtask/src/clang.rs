//! A C compiler for wasm with a C library: the WASI SDK, what the system has, or Debian's packages.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{debian, process, workspace};

const BUNDLE: debian::Bundle = debian::Bundle {
    told: "Debian's clang for wasm, about 45 MB",
    packages: &["clang-19", "lld-19", "libclang-rt-19-dev-wasm32", "wasi-libc"],
    // For native programs, and for editors.
    not_needed: &[
        "binutils",
        "libc6-dev",
        "libc-dev",
        "libclang1-19",
        "libgcc-",
        "libobjc-",
        "libstdc++-",
        "llvm-19-linker-tools",
    ],
};

/// Names on the `PATH`, the newest first, as Debian has them.
const NAMES: [&str; 8] = ["clang", "clang-22", "clang-21", "clang-20", "clang-19", "clang-18", "clang-17", "clang-16"];

pub(crate) struct Clang {
    program: PathBuf,
    sysroot: Option<PathBuf>,
    /// Where it is not on the `PATH`.
    linker: Option<PathBuf>,
}

impl Clang {
    /// Tries each way in order; the last only where downloading is allowed, or was done before.
    pub(crate) fn find(install: bool) -> Result<Self> {
        let mut candidates = Vec::new();
        if let Some(sdk) = env::var_os("WASI_SDK_PATH").map(PathBuf::from) {
            let sysroot = Some(sdk.join("share/wasi-sysroot"));
            candidates.push(Self { program: sdk.join("bin/clang"), sysroot, linker: None });
        }
        // Debian's wasi-libc is in /usr; elsewhere the compiler may know by itself.
        let sysroot = Path::new("/usr/include/wasm32-wasi").is_dir().then(|| PathBuf::from("/usr"));
        let present = NAMES.into_iter().filter_map(workspace::which);
        candidates.extend(present.map(|program| Self { program, sysroot: sysroot.clone(), linker: None }));
        if let Some(clang) = candidates.into_iter().find(Self::works) {
            return Ok(clang);
        }
        let home = home();
        if !install && !home.join("root").is_dir() {
            bail!(
                "there is no clang with wasi-libc here (Debian: clang-19 lld-19 libclang-rt-19-dev-wasm32 wasi-libc)"
            );
        }
        fs::create_dir_all(&home).with_context(|| format!("{} cannot be made", home.display()))?;
        let root = BUNDLE.unpack(&home)?;
        let program = home.join("clang");
        debian::write_wrapper(&program, &root, "bin/clang-19")?;
        let usr = root.join("usr");
        let clang = Self { program, linker: Some(usr.join("bin/wasm-ld-19")), sysroot: Some(usr) };
        if !clang.works() {
            bail!("Debian's clang was unpacked but does not work; delete {} to try afresh", home.display());
        }
        Ok(clang)
    }

    /// `clang` for a plugin: a reactor, which has no `main`, small, and with the names of its functions for backtraces.
    pub(crate) fn compile(&self, include: &Path, source: &Path, output: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--target=wasm32-wasi", "-mexec-model=reactor", "-Os", "-Wall", "-Wextra", "-Werror"]);
        command.args(["-Wno-unused-parameter", "-Wl,--strip-debug"]);
        for (flag, path) in [("--sysroot=", &self.sysroot), ("-fuse-ld=", &self.linker)] {
            if let Some(path) = path {
                let mut flag = OsString::from(flag);
                flag.push(path);
                command.arg(flag);
            }
        }
        command.current_dir(workspace::root()).arg("-I").arg(include).arg(source).arg("-o").arg(output);
        command
    }

    /// Whether it makes wasm with a C library: many a clang cannot.
    fn works(&self) -> bool {
        let folder = env::temp_dir().join(format!("tidegate-clang-{}", std::process::id()));
        let (source, output) = (folder.join("probe.c"), folder.join("probe.wasm"));
        let text = "#include <stdlib.h>\n__attribute__((export_name(\"f\"))) void *f(void) { return malloc(8); }\n";
        let works = fs::create_dir_all(&folder).is_ok()
            && fs::write(&source, text).is_ok()
            && process::answer(&mut self.compile(&folder, &source, &output)).is_ok();
        let _ = fs::remove_dir_all(folder);
        works
    }
}

fn home() -> PathBuf {
    workspace::target().join("guest-tools/c")
}
