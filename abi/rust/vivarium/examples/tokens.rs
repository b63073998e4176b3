//! tokens MODEL TEXT: the text's tokens.
fn main() -> vivarium::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let runtime = vivarium::Runtime::open(&vivarium::Options::default())?;
    let model = runtime.load(&args[1], None)?;
    for id in model.tokenize(&args[2], true)? {
        println!("{} {:?}", id, model.detokenize(&[id], false)?);
    }
    Ok(())
}
