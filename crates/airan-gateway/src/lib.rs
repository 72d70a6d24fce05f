//! The gateway role: doors and admission, handing rows to the bus.
