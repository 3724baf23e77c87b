//! Valid modules and components of every kind, which are no plugins, or nearly: the loader says so and no more.
#![no_main]

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use tidegate::fuzzing::load;
use wasm_smith::{Component, Config, Module};

fuzz_target!(|input: &[u8]| {
    let _ = smith(input);
});

fn smith(input: &[u8]) -> Result<()> {
    let mut input = Unstructured::new(input);
    let bytes = match input.arbitrary::<bool>()? {
        true => {
            let mut config = Config::default();
            config.max_funcs = 8;
            Module::new(config, &mut input)?.to_bytes()
        }
        false => Component::new(Config::default(), &mut input)?.to_bytes(),
    };
    load(&bytes);
    Ok(())
}
