"""Dormand–Prince 5(4): tableau, dense output, step-size control and stiffness test, shared by all back-ends.

Dormand & Prince (1980), "A family of embedded Runge-Kutta formulae", J. Comput. Appl. Math. 6. Dense output,
control and stiffness test as in the code DOPRI5 of Hairer, Nørsett & Wanner, "Solving Ordinary Differential
Equations I", 2nd ed. (1993), here with the maximum norm.
"""

# Table 2, RK5(4)7M. The last stage is the fifth-order solution itself ("first same as last"); ERROR is the
# fifth- minus the fourth-order weights.
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)

# The quartic on a step, z(θ) = c₁ + θ(c₂ + (1−θ)(c₃ + θ(c₄ + (1−θ)c₅))), has c₅ = h Σ BEND_i k_i (II.6, due
# to Shampine); c₁ to c₄ are those of the cubic Hermite interpolant.
BEND = (
    -12715105075 / 11282082432,
    0.0,
    87487479700 / 32700410799,
    -10690763975 / 1880347072,
    701980252875 / 199316789632,
    -1453857185 / 822651844,
    69997945 / 29380423,
)

# Control: the next step is h · SAFETY · error^(−ALPHA) · previous error^BETA, by a factor from LEAST to MOST.
SAFETY, ALPHA, BETA = 0.9, 0.17, 0.04
LEAST, MOST = 0.2, 10.0
SMALLEST_ERROR = 1e-4  # smaller errors count as this, and so does the one before the first step
LANDING = 1.01  # a step that would end within 1 % of an output time is cut or stretched to end on it

# Stiffness: h‖k₇ − k₆‖/‖z₇ − z₆‖ estimates h times the dominant eigenvalue. Where accuracy limits the step
# it is small; where stability does, it hovers below the 3.3 up to which the method is stable. A row is stiff
# when the mean over its recent accepted steps, the last one counting STIFF_SHARE, is above STIFF_LIMIT; the
# Torch back-end looks from step STIFF_AFTER on. (DOPRI5 counts steps above 3.25 instead, which a step size
# that bounces off the limit seldom shows.)
STIFF_LIMIT, STIFF_SHARE, STIFF_AFTER = 1.2, 1 / 64, 1000
