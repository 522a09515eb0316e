"""What runs inside a runtime, beside untrusted code: nothing that it says is believed."""
