//! A plain program: tells what it is given, and ends with the code that it is
//! told to.

use std::io::Read;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("spin") => loop {
            std::hint::spin_loop();
        },
        Some("trap") => panic!("as told"),
        Some("write") => std::fs::write(&arguments[1], "written").expect("the file can be written"),
        Some("read") => print!("{}", std::fs::read_to_string(&arguments[1]).expect("it can be read")),
        Some("exit") => std::process::exit(arguments[1].parse().expect("a number")),
        _ => {}
    }
    println!("arguments {arguments:?}");
    println!("variable {:?}", std::env::var("GIVEN").ok());
    println!("secret {:?}", std::env::vars().find(|(name, _)| name.starts_with("WHARF_")));
    if arguments.first().is_some_and(|word| word == "input") {
        let mut input = String::new();
        std::io::stdin().read_to_string(&mut input).expect("stdin can be read");
        println!("input {input:?}");
    }
    eprintln!("and an error");
}

#[unsafe(no_mangle)]
pub extern "C" fn other() {
    println!("the other function");
}
