"""Device physics: one pure step each, `update(spec, state, time, inputs) -> (state, outputs)`.

No sockets, no clocks and no randomness of their own. Power is in kW at the device's
terminals, injection into the grid positive.
"""
