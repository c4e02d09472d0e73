#include "kernels/error.hpp"
